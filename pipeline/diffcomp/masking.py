"""PSM: phrase-guided selective masking, in training only (algorithm 1, lines 7-9; table 10).

A reconstruction: the equations (4)-(11) that the supplement cites are not available. Super-patches
that agree with a phrase are masked, a share rho of them on average. Every draw comes from a CPU
generator, so a run repeats on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

BISECTIONS = 40
REACH = 30.0
"""The threshold b is sought this many temperatures beyond the scores: sigmoid(30) is one in float32."""


def pad_phrases(features: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Ragged phrases [P_total, D] -> [B, P, D] and bool [B, P]; image i owns offsets[i]..offsets[i + 1] - 1.

    Raises ValueError when an image has no phrase or the offsets do not cover the features.
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
    """z_j = max_i cos(t_i, f_j): [B, P, D], [B, P], [B, N_s, D], all L2-normalised -> [B, N_s]."""
    with torch.autocast(phrases.device.type, enabled=False):
        similarity = torch.einsum("bpd,bjd->bpj", phrases.float(), super_patches.float())  # s_ij
    return similarity.masked_fill(~valid[..., None], float("-inf")).amax(1)


def saliency(super_patches: Tensor, image: Tensor) -> Tensor:
    """The CAM row's score, [B, N_s, D] and [B, D] -> [B, N_s]: how much a super-patch agrees with its own image.

    A gradient-free stand-in for class activation maps: text-blind saliency without a classifier.
    """
    return (super_patches * image[:, None]).sum(-1).detach()


def mask_logits(scores: Tensor, rho: float, temperature: float) -> Tensor:
    """l_j = (z_j - b) / tau_m, [B, N_s]. b, a constant for the gradient, makes mean_j sigmoid(l_j) = rho an image."""
    with torch.no_grad():
        low = scores.amin(1, keepdim=True) - REACH * temperature  # everything masked
        high = scores.amax(1, keepdim=True) + REACH * temperature  # nothing masked
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            too_many = ((scores - middle) / temperature).sigmoid().mean(1, keepdim=True) > rho
            low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    return (scores - (low + high) / 2) / temperature


def draw_mask(logits: Tensor, model: str, rho: float, generator: torch.Generator | None) -> Tensor:
    """m_j [B, N_s] from l_j by table 10's models; one means masked.

    straight_through: two-class Gumbel-softmax on (l_j, 0), hard forward, soft backward.
    gumbel: the same without the hard step. sigmoid: the probability itself, nothing drawn.
    hard: the round(rho N_s) highest, no gradient. Raises ValueError for another model.
    """
    if model == "sigmoid":
        return logits.sigmoid()
    if model == "hard":
        return _highest(logits.detach(), rho)
    if model not in ("straight_through", "gumbel"):
        raise ValueError(f"mask model {model!r} is not one of straight_through, hard, sigmoid, gumbel")
    noise = -torch.empty(2, *logits.shape).exponential_(generator=generator).log()  # Gumbel, one for each class
    soft = (logits + (noise[0] - noise[1]).to(logits)).sigmoid()  # softmax over (l_j + g_1, g_0)
    if model == "gumbel":
        return soft
    return (soft > 0.5).to(soft) + (soft - soft.detach())


def random_mask(batch: int, count: int, rho: float, generator: torch.Generator | None) -> Tensor:
    """[B, N_s] with exactly round(rho N_s) ones an image."""
    return _highest(torch.rand(batch, count, generator=generator), rho)


def crop_mask(batch: int, shape: tuple[int, int], rho: float, generator: torch.Generator | None) -> Tensor:
    """[B, N_s]: all but a random rectangle of about (1 - rho) N_s super-patches, nearly of the grid's shape."""
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
    """Patches [B, N, W] without positions, fill [W] or [B, N, W], mask [B, N] -> [B, N, W]. Soft masks blend."""
    mask = mask[..., None].to(patches.dtype)
    return patches * (1 - mask) + fill.to(patches.dtype) * mask


def _highest(scores: Tensor, rho: float) -> Tensor:
    """One for the round(rho N_s) highest scores of each row, zero elsewhere."""
    chosen = scores.topk(round(rho * scores.shape[1]), dim=1).indices
    return torch.zeros_like(scores).scatter(1, chosen, 1.0)
