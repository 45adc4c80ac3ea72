"""Working ahead: while a batch is encoded, threads decode the next rows and put them together."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Container, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from pipeline.encoders.cores import use_cores
from pipeline.encoders.embedding.rows import EncoderRow, RowKey
from pipeline.encoders.mllm.interface import MllmInput

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


@dataclass
class PendingRow:
    """A row without its bytes, and its input: being decoded, or still to be decoded from the bytes."""

    row: EncoderRow
    key: RowKey
    future: Future[MllmInput] | None
    image: bytes | None

    def input(self, decode: Callable[[EncoderRow], MllmInput]) -> MllmInput:
        """The decoded input. Raises UnreadableRowError."""
        return self.future.result() if self.future else decode(replace(self.row, image=self.image))


class DecodedAhead:
    """An iterator over rows, some of them in advance, their images decoded by threads. Close it by `with`.

    Args:
        rows: The rows.
        decode: A row -> its input; called in threads.
        workers: Threads; 0: nothing is done in advance.
        count: How many rows in advance, at most.
    """

    def __init__(self, rows: Iterator[EncoderRow], decode: Callable[[EncoderRow], MllmInput], workers: int, count: int):
        self._rows, self._decode, self._count = rows, decode, count
        self._pool = ThreadPoolExecutor(workers, initializer=use_cores) if workers else None
        self._window: deque[PendingRow] = deque()
        self._running: WeakValueDictionary[RowKey, Future[MllmInput]] = WeakValueDictionary()
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
        wanted = self._count + 1 - len(self._window) if self._pool else not self._window
        for row in itertools.islice(self._rows, int(wanted)):
            self._window.append(self._begin(row))
        if not self._window:
            raise StopIteration
        return self._window.popleft()

    def _begin(self, row: EncoderRow) -> PendingRow:
        """Start decoding a row, unless its input is known or an equal row is being decoded."""
        key, bare = row.key, replace(row, image=None)
        future = None
        if self._pool and row.image and key not in self.known:
            future = self._running.get(key)
            if future is None:
                future = self._running[key] = self._pool.submit(self._decode, row)
        return PendingRow(bare, key, future, None if future else row.image)
