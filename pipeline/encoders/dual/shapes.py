"""Batches of texts in few shapes: a GPU's attention (cuDNN's) is planned anew for each, for tens of milliseconds."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, LENGTH = 32, 8
"""More texts than so many become a multiple of it, and their length becomes a multiple of the other."""


def few_shapes(token_ids: Tensor, longest: int) -> tuple[Tensor, int]:
    """Texts and their length, rounded up to one of few shapes.

    Args:
        token_ids: [B, C].
        longest: Tokens of the longest text.

    Returns:
        The texts [B', C] with B' >= B, the last repeated, and their length T, `longest` <= T <= C.
    """
    missing = -len(token_ids) % ROWS if len(token_ids) > ROWS else 0
    length = min(longest + -longest % LENGTH, token_ids.shape[1])
    return torch.cat([token_ids, token_ids[-1:].expand(missing, -1)]), length
