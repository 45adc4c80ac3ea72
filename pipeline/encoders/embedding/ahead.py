"""Working ahead: while a batch is encoded, threads decode the next rows and put them together."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Container, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from pipeline.encoders.batching import batches
from pipeline.encoders.cores import use_cores
from pipeline.encoders.embedding.decoding import DecodeRows
from pipeline.encoders.embedding.rows import EncoderRow, RowKey, UnreadableRowError
from pipeline.encoders.mllm.interface import TOGETHER, MllmInput

Item = TypeVar("Item")


def one_ahead(items: Iterator[Item]) -> Generator[Item]:
    """The same items. While one is used, a thread makes the next one.

    Args:
        items: None of them is None. Only that thread goes on with them.

    Yields:
        The items, in order. What making one raises is raised in its turn.
    """
    with ThreadPoolExecutor(1, initializer=use_cores) as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item


@dataclass(eq=False)
class RowOfGroup:
    """One of the rows that a thread decodes together."""

    group: Future[list[MllmInput | UnreadableRowError]] | None = None
    place: int = 0

    def result(self) -> MllmInput | UnreadableRowError:
        """Wait for it."""
        assert self.group
        return self.group.result()[self.place]


@dataclass
class PendingRow:
    """A row without its bytes, and its input: being decoded, or still to be decoded from the bytes."""

    row: EncoderRow
    key: RowKey
    decoding: RowOfGroup | None
    image: bytes | None

    def input(self, decode: DecodeRows) -> MllmInput | UnreadableRowError:
        """The decoded input, or why there is none."""
        return self.decoding.result() if self.decoding else decode([replace(self.row, image=self.image)])[0]


class DecodedAhead:
    """An iterator over rows, some of them in advance, their images decoded by threads. Close it by `with`.

    Args:
        rows: The rows.
        decode: Decodes rows; called in threads.
        workers: Threads; 0: nothing is done in advance.
        count: How many rows in advance, at most. A thread takes up to `TOGETHER` of them at once, fewer where the
            other threads would have none.
    """

    def __init__(self, rows: Iterator[EncoderRow], decode: DecodeRows, workers: int, count: int):
        self._rows, self._decode, self._count = rows, decode, count
        self._together = max(1, min(TOGETHER, count // max(1, 2 * workers)))
        self._pool = ThreadPoolExecutor(workers, initializer=use_cores) if workers else None
        self._window: deque[PendingRow] = deque()
        self._running: WeakValueDictionary[RowKey, RowOfGroup] = WeakValueDictionary()
        self.known: Container[RowKey] = ()
        """Inputs that need no decoding any more."""

    def __enter__(self) -> DecodedAhead:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> DecodedAhead:
        return self

    def __next__(self) -> PendingRow:
        wanted = self._count + 1 - len(self._window) if self._pool else 1
        if wanted >= self._together or not self._window:
            self._begin(list(itertools.islice(self._rows, wanted)))
        if not self._window:
            raise StopIteration
        return self._window.popleft()

    def _begin(self, rows: list[EncoderRow]) -> None:
        """Start decoding rows, but for those whose input is known or is being decoded for an equal row."""
        new: list[tuple[EncoderRow, RowOfGroup]] = []
        for row in rows:
            key, decoding = row.key, None
            if self._pool and row.image and key not in self.known:
                decoding = self._running.get(key)
                if decoding is None:
                    decoding = self._running[key] = RowOfGroup()
                    new.append((row, decoding))
            self._window.append(PendingRow(replace(row, image=None), key, decoding, None if decoding else row.image))
        for some in batches(new, self._together):
            self._submit(*zip(*some, strict=True))

    def _submit(self, rows: Sequence[EncoderRow], decodings: Sequence[RowOfGroup]) -> None:
        """Give a group of rows to a thread."""
        assert self._pool
        group = self._pool.submit(self._decode, rows)
        for place, decoding in enumerate(decodings):
            decoding.group, decoding.place = group, place
