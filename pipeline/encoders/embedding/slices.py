"""The middle of an encoding job: one slice of the reader's rows becomes one shard.

What a batch holds can change the last bits of a result. So batches are made from the order of the
rows alone and never reach over a slice's end: whoever encodes a slice, whenever and after whatever,
makes the same batches and the same shard.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

import pyarrow as pa

from pipeline.encoders.embedding.rows import EncoderRow, Reader, UnreadableRow, decode
from pipeline.encoders.mllm.interface import MllmInput

Key = tuple[bytes, str]
CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _on_any_core() -> None:
    """vLLM on a CPU binds the thread that starts it to one core, and the threads that this one starts would follow."""
    if CORES:
        os.sched_setaffinity(0, CORES)


@dataclass(frozen=True)
class EncoderJob:
    """What to make of the rows."""

    schema: pa.Schema
    encode: Callable[[Sequence[EncoderRow], Sequence[MllmInput]], Sequence[Any]]
    """One batch -> one result an input. Equal inputs of a slice are encoded once."""
    table: Callable[[Sequence[EncoderRow], Sequence[Any]], pa.Table]
    """A whole slice's rows and results -> its table, one row for each."""
    decode: Callable[[EncoderRow], MllmInput] | None = None
    """One row -> what the encoder sees, or UnreadableRow; called in threads. None: `decode`."""


@dataclass
class Slice:
    """What became of the rows from number `start` on."""

    start: int
    rows: int = 0
    table: pa.Table | None = None
    """The encoded ones; None when there are none."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    """Entries of `rejected.parquet`."""


def encode_slices(
    reader: Reader,
    job: EncoderJob,
    start: int,
    batch_size: int,
    rows_per_slice: int,
    workers: int,
    rejected: Callable[[dict[str, Any]], None] = lambda entry: None,
) -> Iterator[Slice]:
    """The slices from row `start` (a multiple of rows_per_slice) on, in order, one in memory.

    While a batch is encoded, `workers` threads decode the rows of the next one. `rejected` hears of
    every row that cannot be encoded, and may end it all with an exception.
    """
    with Ahead(reader.rows(start), job.decode or decode, workers, batch_size) as rows:
        for first in itertools.count(start, rows_per_slice):
            one = _encode_slice(itertools.islice(rows, rows_per_slice), rows, job, first, batch_size, rejected)
            if not one.rows:
                return
            yield one


def _encode_slice(
    rows: Iterator[Decoded],
    ahead: Ahead,
    job: EncoderJob,
    start: int,
    batch_size: int,
    rejected: Callable[[dict[str, Any]], None],
) -> Slice:
    one, kept, keys = Slice(start), [], []
    pending: dict[Key, tuple[EncoderRow, MllmInput]] = {}
    results: dict[Key, Any] = {}
    ahead.known = results

    def encode() -> None:
        batch, inputs = zip(*pending.values(), strict=True)
        results.update(zip(pending, job.encode(batch, inputs), strict=True))
        pending.clear()

    for decoded in rows:
        row, key = decoded.row, decoded.key
        one.rows += 1
        if key not in results and key not in pending:
            try:
                pending[key] = row, decoded.input(job.decode or decode)
            except UnreadableRow as error:
                one.rejected.append(
                    {"row": start + one.rows - 1, "id": row.id, "image_id": row.image_id, "reason": str(error)}
                )
                rejected(one.rejected[-1])
                continue
        kept.append(row)
        keys.append(key)
        if len(pending) == batch_size:
            encode()
    if pending:
        encode()
    one.table = job.table(kept, [results[key] for key in keys]) if kept else None
    return one


@dataclass
class Decoded:
    """A row without its bytes, and its input: being made, or still to be made from the bytes."""

    row: EncoderRow
    key: Key
    future: Future | None
    image: bytes | None

    def input(self, decode: Callable[[EncoderRow], MllmInput]) -> MllmInput:
        return self.future.result() if self.future else decode(replace(self.row, image=self.image))


class Ahead:
    """An iterator over `rows`, up to `count` of them in advance, their images decoded by threads. Close it by `with`."""

    def __init__(self, rows: Iterator[EncoderRow], decode: Callable[[EncoderRow], MllmInput], workers: int, count: int):
        self._rows, self._decode, self._count = rows, decode, count
        self._pool = ThreadPoolExecutor(workers, initializer=_on_any_core) if workers else None
        self._window: deque[Decoded] = deque()
        self._running: WeakValueDictionary[Key, Future] = WeakValueDictionary()
        self.known: Container[Key] = ()
        """Inputs that need no decoding any more."""

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Ahead:
        return self

    def __next__(self) -> Decoded:
        wanted = self._count + 1 - len(self._window) if self._pool else not self._window
        for row in itertools.islice(self._rows, int(wanted)):
            self._window.append(self._begin(row))
        if not self._window:
            raise StopIteration
        return self._window.popleft()

    def _begin(self, row: EncoderRow) -> Decoded:
        key, bare = row.key, replace(row, image=None)
        future = None
        if self._pool and row.image and key not in self.known:
            future = self._running.get(key)
            if future is None:
                future = self._running[key] = self._pool.submit(self._decode, row)
        return Decoded(bare, key, future, None if future else row.image)
