"""Losses that several peers share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """InfoNCE in both directions over pairs of vectors: row i of one belongs to row i of the other.

    L = (CE(S, id) + CE(S^T, id)) / 2, S_ij = cos(l_i, r_j) / tau

    Args:
        left: [B, D].
        right: [B, D].
        temperature: tau.

    Returns:
        A scalar.
    """
    logits = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T / temperature  # [B, B]
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def cosine_distance(left: Tensor, right: Tensor) -> Tensor:
    """The mean of 1 - cos(l_i, r_i) over rows of [B, D]: a scalar."""
    return (1.0 - F.cosine_similarity(left, right, dim=-1)).mean()
