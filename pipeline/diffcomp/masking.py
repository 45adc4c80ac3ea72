"""PSM: phrase-guided selective masking, in training only (equations 4 to 11; table 10).

Super-patches that agree with the caption's phrases are masked, a share eta of them on average, by hiding them from the
attention of every visual block. The equations are known second-hand, from public notes on the paper. Every draw comes
from a CPU generator, so a run repeats on any device.
"""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.diffcomp import MaskModel

BISECTIONS = 40
"""Halvings of the interval that holds the first threshold b."""
REACH = 30.0
"""It is sought this far beyond the scores: sigmoid(30) is one in float32."""
HIDDEN = 1e-9
"""What is left of 1 - M where M is one, so that its logarithm and the gradient through it stay finite."""


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


def similarities(phrases: Tensor, super_patches: Tensor) -> Tensor:
    """Equation (4): S_ij = cos(f_i^K, f_j).

    Args:
        phrases: f_i^K [B, P, D], L2-normalised.
        super_patches: f_j [B, N_s, D], L2-normalised.

    Returns:
        S [B, P, N_s], at least in float32.
    """
    with torch.autocast(phrases.device.type, enabled=False):
        kind = torch.promote_types(phrases.dtype, torch.float32)
        return torch.einsum("bpd,bjd->bpj", phrases.to(kind), super_patches.to(kind))


def saliency(similarity: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """omega_i = softmax_i(mean_j S_ij / temperature): how salient each phrase is in the image.

    The notes name omega and do not say what the softmax is of; the mean over super-patches is this project's reading.

    Args:
        similarity: S [B, P, N_s].
        valid: Which phrases are real [B, P].
        temperature: Of the softmax.

    Returns:
        omega [B, P]; zero where a phrase is padding.
    """
    return (similarity.mean(2) / temperature).masked_fill(~valid, float("-inf")).softmax(1)


def guided_scores(omega: Tensor, similarity: Tensor) -> Tensor:
    """Equation (5): z_j = sum_i omega_i S_ij; [B, P] and [B, P, N_s] -> [B, N_s]."""
    return torch.einsum("bp,bpj->bj", omega, similarity)


def salient_similarity(omega: Tensor, similarity: Tensor) -> Tensor:
    """S_k*j with k* = argmax_i omega_i: the most salient phrase's row; [B, P] and [B, P, N_s] -> [B, N_s]."""
    return similarity[torch.arange(len(omega), device=omega.device), omega.argmax(1)]


def threshold(scores: Tensor, gamma: float, eta: float) -> float:
    """The b at which mean_j sigmoid(gamma z_j + b) = eta over some images: where b's training starts.

    Args:
        scores: z_j [B, N_s].
        gamma: Not zero.
        eta: The share that is masked on average.
    """
    scaled = gamma * scores.detach().double()
    low, high = -float(scaled.max()) - REACH, -float(scaled.min()) + REACH
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if float((scaled + middle).sigmoid().mean()) > eta else (middle, high)
    return (low + high) / 2


def gumbel_temperature(progress: float, start: float, end: float) -> float:
    """Linear from `start` to `end` over the first half of training, then `end`; `progress` is in [0, 1]."""
    return start + (end - start) * min(1.0, 2 * progress)


def draw_mask(
    logits: Tensor, model: MaskModel, eta: float, temperature: float, generator: torch.Generator | None
) -> Tensor:
    """Equations (7) and (8), and the other mask models of Table 10.

    straight_through: two-class Gumbel-softmax on (l_j, 0), m_j = [s_j > 1/2] forward and s_j backward, where
    s_j = sigmoid((l_j + g_j1 - g_j0) / temperature) and g is Gumbel noise. gumbel: s_j itself. sigmoid: the
    probability p_j = sigmoid(l_j), nothing drawn. hard: the round(eta N_s) highest, without a gradient.

    Args:
        logits: l_j = gamma z_j + b [B, N_s].
        model: Which of them.
        eta: The masked share of `hard`.
        temperature: Of the Gumbel-softmax.
        generator: What the noise is drawn with.

    Returns:
        m_j [B, N_s]; one means masked.

    Raises:
        ValueError: There is no such model.
    """
    if model == "sigmoid":
        return logits.sigmoid()
    if model == "hard":
        return highest(logits.detach(), eta)
    if model not in get_args(MaskModel):
        raise ValueError(f"mask model {model!r} is not one of {', '.join(get_args(MaskModel))}")
    noise = -torch.empty(2, *logits.shape).exponential_(generator=generator).log()  # Gumbel, one for each class
    soft = ((logits + (noise[0] - noise[1]).to(logits)) / temperature).sigmoid()  # softmax over (l_j + g_1, g_0)
    if model == "gumbel":
        return soft
    return (soft > 0.5).to(soft) + (soft - soft.detach())


def random_mask(batch: int, count: int, eta: float, generator: torch.Generator | None) -> Tensor:
    """A mask without looking: exactly round(eta N_s) ones an image.

    Args:
        batch: B.
        count: N_s.
        eta: The masked share.
        generator: What is drawn with.

    Returns:
        [B, N_s].
    """
    return highest(torch.rand(batch, count, generator=generator), eta)


def crop_mask(batch: int, shape: tuple[int, int], eta: float, generator: torch.Generator | None) -> Tensor:
    """Mask all but a random rectangle of about (1 - eta) N_s super-patches, as near to the grid's shape as fits.

    Args:
        batch: B.
        shape: Super-patches, (down, across).
        eta: The masked share.
        generator: What is drawn with.

    Returns:
        [B, N_s]; one means masked.
    """
    height, width = shape
    keep = round((1 - eta) * height * width)
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


def highest(scores: Tensor, eta: float) -> Tensor:
    """A mask of the round(eta N_s) highest scores of each image: [B, N_s] -> [B, N_s]."""
    chosen = scores.topk(round(eta * scores.shape[1]), dim=1).indices
    return torch.zeros_like(scores).scatter(1, chosen, 1.0)


def attention_bias(mask: Tensor) -> Tensor:
    """Equations (9) to (11): log(1 - M), added to every query's attention scores in every block.

    softmax(Q K^T / sqrt(d_k) + log(1 - M)^T) V weighs a key by 1 - M. CLS, in front, is never masked, so every sum
    holds something. At M = 1 the logarithm is cut at log(HIDDEN); the product of its steep gradient and of the
    attention weight is what the gradient is there in the limit.

    Args:
        mask: M of the patches [B, N], in [0, 1]; one means masked.

    Returns:
        [B, 1 + N].
    """
    return F.pad(((1 - mask) + HIDDEN).log(), (1, 0))


def fill(patches: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """Masked patches from other images; soft masks blend. This project's, for relatives.

    Args:
        patches: Patch embeddings without positions [B, N, W].
        others: Of the images that fill [B, N, W].
        mask: One means masked [B, N].

    Returns:
        [B, N, W].
    """
    mask = mask[..., None].to(patches.dtype)
    return patches * (1 - mask) + others.to(patches.dtype) * mask
