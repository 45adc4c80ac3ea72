"""Consecutive batches of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

Item = TypeVar("Item")


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Consecutive slices of at most `size` items; all but the last have exactly that many."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


@torch.inference_mode()
def encode_in_batches(
    encode: Callable[[Sequence[Item]], Tensor], items: Sequence[Item], batch_size: int, title: str
) -> np.ndarray:
    """Encode a sequence batch by batch.

    Args:
        encode: A batch of B items -> [B, d].
        items: The N items, at least one.
        batch_size: Items in a batch.
        title: What the progress bar says.

    Returns:
        float32 [N, d].
    """
    progress = tqdm(list(batches(items, batch_size)), desc=title, mininterval=5.0, delay=1.0)
    return np.concatenate([encode(batch).float().cpu().numpy() for batch in progress])
