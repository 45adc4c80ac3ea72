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


def shown_batches(items: Sequence[Item], size: int, title: str, unit: str) -> Iterator[Sequence[Item]]:
    """As `batches`, with a progress bar that counts the items.

    Args:
        items: Any sequence.
        size: Items in a batch.
        title: Of the bar.
        unit: What an item is, in the singular.
    """
    with tqdm(total=len(items), desc=title, unit=unit, mininterval=5.0, delay=1.0) as progress:
        for batch in batches(items, size):
            yield batch
            progress.update(len(batch))


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
    shown = shown_batches(items, batch_size, title, "row")
    return np.concatenate([encode(batch).float().cpu().numpy() for batch in shown])
