"""The images that a model trains on: all in memory where they fit, else decoded as batches are made of them.

Both train the same bits. A worker process decodes a whole batch, augments it with the batch's own random numbers, and
returns how far it went through them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.artifacts import ArtifactError
from pipeline.encoders.augment import augment
from pipeline.encoders.image_source import ImageTable

IN_MEMORY = 4 * 2**30
"""Images of more bytes than this, decoded, do not stay in memory."""
BATCHES_AHEAD = 2
"""Batches that each worker makes in advance."""

Draws = tuple[Tensor, int]
"""The rows of a batch [B], and the seed of its random numbers."""


def training_images(
    table: ImageTable, ids: Sequence[str], side: int, workers: int, in_memory: int = IN_MEMORY
) -> Tensor | LazyImages:
    """The images of N training pairs.

    Args:
        table: Holds them.
        ids: One a pair.
        side: Of the squares that they become, in pixels.
        workers: Processes that make batches in advance, where the images do not stay in memory.
        in_memory: Decoded images of more bytes than this do not.

    Returns:
        uint8 [N, 3, side, side].
    """
    if len(ids) * 3 * side * side <= in_memory:
        return table.pixels(ids, side)
    return LazyImages(table, ids, side, workers)


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Augmented images, uint8 [B, 3, H, W] as they were; see `augment`."""
    return (255 * augment(images.float() / 255, generator)).round().to(torch.uint8)


class LazyImages:
    """Images that are read by indexing like a tensor, uint8 [N, 3, S, S], and decoded each time.

    Args:
        table: Holds them.
        ids: One a row.
        side: S.
        workers: Processes that make the batches of `expect`. 0: none, so that nothing is made in advance.
    """

    dtype = torch.uint8

    def __init__(self, table: ImageTable, ids: Sequence[str], side: int, workers: int):
        self._table, self._ids, self._workers = table, list(ids), workers
        self.shape = torch.Size((len(ids), 3, side, side))
        self._expected: deque[Draws] = deque()
        self._made: Iterator[_Made] | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The images of some rows [B], decoded here by threads."""
        ids, side = [self._ids[row] for row in rows.tolist()], self.shape[-1]
        with ThreadPoolExecutor(max(1, self._workers)) as pool:
            parts = pool.map(lambda one: self._table.pixels([one], side), ids)
            return torch.cat([torch.empty(0, *self.shape[1:], dtype=self.dtype), *parts])

    def expect(self, batches: Iterable[Draws], vary: bool) -> None:
        """Begin to make batches, a few of them in advance.

        Args:
            batches: All that `take` will ask for, in order.
            vary: Whether they are augmented.
        """
        self._expected.clear()
        if not self._workers:
            return
        loader = DataLoader(
            _Batches(self._table, self._ids, self.shape[-1], vary),
            batch_size=None,
            sampler=self._noted(batches),
            num_workers=self._workers,
            prefetch_factor=BATCHES_AHEAD,
            multiprocessing_context="spawn",  # a forked process would hold locks of this one's threads
            generator=torch.Generator(),  # which it draws from; no other number is to depend on that
        )
        self._made = iter(loader)

    def _noted(self, batches: Iterable[Draws]) -> Iterator[Draws]:
        for rows, seed in batches:
            self._expected.append((rows, seed))
            yield rows, seed

    def take(self, rows: Tensor, generator: torch.Generator) -> Tensor | None:
        """The next batch that was expected, if it is this one.

        Args:
            rows: The batch's rows [B].
            generator: The batch's random numbers. It goes on behind those that augmentation has drawn.

        Returns:
            uint8 [B, 3, S, S], augmented if that was asked for; None if another batch is the next one, or none is.

        Raises:
            ArtifactError: An image cannot be read; it is named.
        """
        if self._made is None or not self._expected:
            return None
        expected, seed = self._expected[0]
        if seed != generator.initial_seed() or not torch.equal(expected, rows):
            return None
        self._expected.popleft()
        made = next(self._made)
        if isinstance(made, str):
            raise ArtifactError(made)
        generator.set_state(made.state)
        return made.images


class _Batch(NamedTuple):
    images: Tensor
    state: Tensor
    """Of the random numbers, after augmentation."""


_Made = _Batch | str
"""A batch, or why there is none."""


class _Batches(Dataset[_Made]):
    """What a worker process makes of a batch's rows."""

    def __init__(self, table: ImageTable, ids: Sequence[str], side: int, vary: bool):
        self._table, self._ids, self._side, self._vary = table, ids, side, vary

    def __getitem__(self, batch: Draws) -> _Made:
        rows, seed = batch
        generator = torch.Generator().manual_seed(seed)
        try:
            images = self._table.pixels([self._ids[row] for row in rows.tolist()], self._side)
        except ArtifactError as error:  # torch would put the worker's traceback into the message
            return str(error)
        if self._vary:
            images = varied(images, generator)
        return _Batch(images, generator.get_state())
