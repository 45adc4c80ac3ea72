"""PSM: phrase-guided selective masking, in training only (algorithm 1, lines 7-9; table 10).

Super-patches that agree with a phrase are masked, a share rho of them on average. The supplement cites its equations
(4)-(11) without showing them; the functions state this project's forms. Every draw comes from a CPU generator, so a
run repeats on any device.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from pipeline.config.diffcomp import MaskModel

BISECTIONS = 40
"""Halvings of the interval that holds the threshold b."""
REACH = 30.0
"""The threshold b is sought this many temperatures beyond the scores: sigmoid(30) is one in float32."""


def pad_phrases(features: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Phrases that lie one after the other, as one padded row an image.

    Args:
        features: Of all phrases [P_total, D].
        offsets: Image i owns the phrases offsets[i] .. offsets[i + 1] - 1 [B + 1].

    Returns:
        [B, P, D], and what is real of it, bool [B, P].

    Raises:
        ValueError: An image has no phrase, or the offsets do not cover the features.
    """
    counts = offsets.diff()
    if len(counts) == 0 or int(counts.min()) < 1 or int(offsets[0]) != 0 or int(offsets[-1]) != len(features):
        raise ValueError(
            f"phrase offsets {offsets.tolist()[:8]}... do not give every image a phrase out of {len(features)}"
        )
    slot = torch.arange(int(counts.max()), device=offsets.device)  # [P]
    valid = slot < counts[:, None]
    index = (offsets[:-1, None] + slot).clamp(max=len(features) - 1)
    return features[index.to(features.device)], valid.to(features.device)


def alignment(phrases: Tensor, valid: Tensor, super_patches: Tensor) -> Tensor:
    """How much each super-patch agrees with the phrase that it agrees with most: z_j = max_i cos(t_i, f_j).

    Args:
        phrases: t_i [B, P, D], L2-normalised.
        valid: Which of them are real [B, P].
        super_patches: f_j [B, N_s, D], L2-normalised.

    Returns:
        z_j [B, N_s].
    """
    with torch.autocast(phrases.device.type, enabled=False):
        similarity = torch.einsum("bpd,bjd->bpj", phrases.float(), super_patches.float())  # s_ij
    return similarity.masked_fill(~valid[..., None], float("-inf")).amax(1)


def saliency(super_patches: Tensor, image: Tensor) -> Tensor:
    """How much each super-patch agrees with its own image: the score of Table 10's CAM row.

    A gradient-free stand-in for class activation maps: text-blind saliency without a classifier.

    Args:
        super_patches: f_j [B, N_s, D], L2-normalised.
        image: f_I [B, D], L2-normalised.

    Returns:
        cos(f_j, f_I) [B, N_s].
    """
    return (super_patches * image[:, None]).sum(-1).detach()


def mask_logits(scores: Tensor, rho: float, temperature: float) -> Tensor:
    """l_j = (z_j - b) / tau_m, with b in every image such that mean_j sigmoid(l_j) = rho.

    Args:
        scores: z_j [B, N_s].
        rho: The share that is masked on average.
        temperature: tau_m.

    Returns:
        l_j [B, N_s]; b is a constant for the gradient.
    """
    with torch.no_grad():
        low = scores.amin(1, keepdim=True) - REACH * temperature  # everything masked
        high = scores.amax(1, keepdim=True) + REACH * temperature  # nothing masked
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            too_many = ((scores - middle) / temperature).sigmoid().mean(1, keepdim=True) > rho
            low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    return (scores - (low + high) / 2) / temperature


def draw_mask(logits: Tensor, model: MaskModel, rho: float, generator: torch.Generator | None) -> Tensor:
    """Draw a mask by one of Table 10's models.

    straight_through: two-class Gumbel-softmax on (l_j, 0), m_j = [s_j > 1/2] forward and s_j backward, where
    s_j = sigmoid(l_j + g_j1 - g_j0) and g is Gumbel noise. gumbel: s_j itself. sigmoid: the probability
    sigmoid(l_j), nothing drawn. hard: the round(rho N_s) highest, without a gradient.

    Args:
        logits: l_j [B, N_s].
        model: Which of them.
        rho: The masked share of `hard`.
        generator: What the noise is drawn with.

    Returns:
        m_j [B, N_s]; one means masked.

    Raises:
        ValueError: There is no such model.
    """
    if model == "sigmoid":
        return logits.sigmoid()
    if model == "hard":
        return _highest(logits.detach(), rho)
    if model not in get_args(MaskModel):
        raise ValueError(f"mask model {model!r} is not one of {', '.join(get_args(MaskModel))}")
    noise = -torch.empty(2, *logits.shape).exponential_(generator=generator).log()  # Gumbel, one for each class
    soft = (logits + (noise[0] - noise[1]).to(logits)).sigmoid()  # softmax over (l_j + g_1, g_0)
    if model == "gumbel":
        return soft
    return (soft > 0.5).to(soft) + (soft - soft.detach())


def random_mask(batch: int, count: int, rho: float, generator: torch.Generator | None) -> Tensor:
    """A mask without looking: exactly round(rho N_s) ones an image.

    Args:
        batch: B.
        count: N_s.
        rho: The masked share.
        generator: What is drawn with.

    Returns:
        [B, N_s].
    """
    return _highest(torch.rand(batch, count, generator=generator), rho)


def crop_mask(batch: int, shape: tuple[int, int], rho: float, generator: torch.Generator | None) -> Tensor:
    """Mask all but a random rectangle of about (1 - rho) N_s super-patches, as near to the grid's shape as fits.

    Args:
        batch: B.
        shape: Super-patches, (down, across).
        rho: The masked share.
        generator: What is drawn with.

    Returns:
        [B, N_s]; one means masked.
    """
    height, width = shape
    keep = round((1 - rho) * height * width)
    if keep == 0:
        return torch.ones(batch, height * width)
    sizes = [(rows, min(width, max(1, round(keep / rows)))) for rows in range(1, height + 1)]
    rows, columns = min(
        sizes, key=lambda size: (abs(size[0] * size[1] - keep), abs(size[0] / height - size[1] / width))
    )
    top = torch.randint(height - rows + 1, (batch, 1), generator=generator)
    left = torch.randint(width - columns + 1, (batch, 1), generator=generator)
    y, x = torch.arange(height), torch.arange(width)
    inside = ((y >= top) & (y < top + rows))[:, :, None] & ((x >= left) & (x < left + columns))[:, None]  # [B, h, w]
    return (~inside).flatten(1).float()


def apply_mask(patches: Tensor, fill: Tensor, mask: Tensor) -> Tensor:
    """Replace masked patches; soft masks blend.

    Args:
        patches: Patch embeddings without positions [B, N, W].
        fill: What masked patches become, [W] or [B, N, W].
        mask: One means masked [B, N].

    Returns:
        [B, N, W].
    """
    mask = mask[..., None].to(patches.dtype)
    return patches * (1 - mask) + fill.to(patches.dtype) * mask


def _highest(scores: Tensor, rho: float) -> Tensor:
    """One for the round(rho N_s) highest scores of each row, zero elsewhere."""
    chosen = scores.topk(round(rho * scores.shape[1]), dim=1).indices
    return torch.zeros_like(scores).scatter(1, chosen, 1.0)
