"""Conflicting evidence: what a query shows where a masked image shows nothing.

A query's reference contradicts its text; an image with holes merely lacks what the text names. So
masked super-patches may be filled from a *relative*, an image that looks alike and is called
otherwise, and the composition text may be what the image's caption says and the relative's does not.
Both come from plain image-text pairs and the encoder as it was before fine-tuning. Not in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 2048
"""Images compared at once: bounds memory to ROWS x N similarities."""


def nearest_relatives(images: Tensor, captions: Tensor, count: int) -> Tensor:
    """The nearest images with another caption.

    Args:
        images: [N, D], L2-normalised.
        captions: Equal numbers where captions are equal [N].
        count: How many of each image.

    Returns:
        Rows of `images`, nearest first [N, count].

    Raises:
        ValueError: Some image has fewer than `count` images of other captions.
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


def difference(caption: str, other: str) -> str:
    """The words of a caption that another one lacks, in order; the whole caption where it lacks none."""
    known = set(_words(other))
    return " ".join(word for word in _words(caption) if word not in known) or caption


def _words(caption: str) -> list[str]:
    return caption.replace(",", " ").split()
