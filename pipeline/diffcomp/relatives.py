"""Conflicting evidence: what a query shows where a masked image shows nothing.

A query's reference contradicts its text; an image with holes merely lacks what the text names. So
masked super-patches may be filled from a *relative*, an image that looks alike and is called
otherwise, and the composition text may be the phrase that tells the image from its relative. Both
come from plain image-text pairs and the encoder as it was before fine-tuning. Not in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 2048
"""Images compared at once: bounds memory to ROWS x N similarities."""


def nearest_relatives(images: Tensor, captions: Tensor, count: int) -> Tensor:
    """The `count` nearest images with another caption, [N, count], nearest first.

    images: [N, D], L2-normalised; captions: [N], equal numbers where captions are equal. Raises
    ValueError where some image has fewer than `count` images of other captions.
    """
    others = len(captions) - captions.unique(return_counts=True)[1].max()
    if count > others:
        raise ValueError(f"{count} relatives wanted, some image has only {int(others)} images of other captions")
    found = []
    for rows in torch.arange(len(images)).split(ROWS):
        similarity = images[rows] @ images.T
        similarity.masked_fill_(captions[rows, None] == captions[None], float("-inf"))
        found.append(similarity.topk(count, dim=1).indices)
    return torch.cat(found)


def telling_phrases(phrases: Tensor, offsets: Tensor, images: Tensor, relatives: Tensor) -> Tensor:
    """Which of each image's phrases tells it best from its relative: argmax_i cos(t_i, f_I) - cos(t_i, f_R).

    phrases: t_i [P_total, D]; image b owns offsets[b]..offsets[b + 1] - 1; images f_I and relatives
    f_R: [B, D]; all L2-normalised -> rows of `phrases`, [B].
    """
    owner = torch.arange(len(images)).repeat_interleave(offsets.diff())  # [P_total]
    tells = (phrases * (images - relatives)[owner]).sum(-1)
    best = torch.full((len(images),), float("-inf")).scatter_reduce(0, owner, tells, "amax")
    first = torch.full((len(images),), len(phrases), dtype=torch.long)
    rows = torch.arange(len(phrases))
    return first.scatter_reduce(0, owner, torch.where(tells == best[owner], rows, len(phrases)), "amin")
