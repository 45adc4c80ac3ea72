"""The middle of an encoding job: one slice of the reader's rows becomes one shard.

What a batch holds can change the last bits of a result. So batches are made from the order of the
rows alone and never reach over a slice's end: whoever encodes a slice, whenever and after whatever,
makes the same batches and the same shard.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.encoders.embedding.ahead import DecodedAhead, PendingRow
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow, Reader, RowKey, UnreadableRowError, decode
from pipeline.encoders.mllm.interface import MllmInput


def _at_once() -> None:
    """Nothing has to start."""


@dataclass(frozen=True)
class EncoderJob:
    """What to make of the rows."""

    schema: pa.Schema
    encode: Callable[[Sequence[EncoderRow], Sequence[MllmInput]], Iterable[Any]]
    """One batch -> one result an input. Equal inputs of a slice are encoded once."""
    table: Callable[[Sequence[EncoderRow], Sequence[Any]], pa.Table]
    """A whole slice's rows and results -> its table, one row for each."""
    decode: Callable[[EncoderRow], MllmInput] = decode
    """One row -> what the encoder sees, or UnreadableRowError; called in threads."""
    start: Callable[[], None] = _at_once
    """Called before the first row: an engine may take minutes to start, which is no row's work."""


@dataclass
class Slice:
    """What became of the rows from number `start` on."""

    start: int
    rows: int = 0
    table: pa.Table | None = None
    """The encoded ones; None when there are none."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    """Entries of `rejected.parquet`."""


def _ignore(news: Any) -> None:
    """Nobody is told: the slice itself holds its rows and what was rejected."""


def encode_slices(
    reader: Reader,
    job: EncoderJob,
    start: int,
    options: JobOptions,
    reject: Callable[[dict[str, Any]], None] = _ignore,
    advance: Callable[[int], Any] = _ignore,
) -> Iterator[Slice]:
    """Encode the rows from `start` on, slice by slice.

    While a batch is encoded, threads decode the rows of the next one.

    Args:
        reader: The rows.
        job: What to make of them.
        start: The first row, a multiple of `options.rows_per_shard`.
        options: The sizes of slices and batches, and the number of threads.
        reject: Called with the entry of every row that cannot be encoded. It may end the job with an exception.
        advance: Called after every batch, with the number of rows that it went on by.

    Yields:
        The slices, in order. One is in memory at a time.
    """
    with DecodedAhead(reader.rows(start), job.decode, options.workers, options.batch_size) as rows:
        for first in itertools.count(start, options.rows_per_shard):
            encoder = _SliceEncoder(job, first, options.batch_size, reject, advance)
            rows.known = encoder.results
            encoded = encoder.encode(itertools.islice(rows, options.rows_per_shard))
            if not encoded.rows:
                return
            yield encoded


class _SliceEncoder:
    """Encodes one slice, batch by batch, every distinct input once."""

    def __init__(
        self,
        job: EncoderJob,
        start: int,
        batch_size: int,
        reject: Callable[[dict[str, Any]], None],
        advance: Callable[[int], Any],
    ):
        self._job, self._batch_size, self._reject, self._advance = job, batch_size, reject, advance
        self._slice, self._told = Slice(start), 0
        self._pending: dict[RowKey, tuple[EncoderRow, MllmInput]] = {}
        self.results: dict[RowKey, Any] = {}

    def encode(self, rows: Iterator[PendingRow]) -> Slice:
        """The slice that these rows make."""
        kept: list[EncoderRow] = []
        keys: list[RowKey] = []
        for pending in rows:
            self._slice.rows += 1
            if not self._take(pending):
                continue
            kept.append(pending.row)
            keys.append(pending.key)
            if len(self._pending) == self._batch_size:
                self._encode_batch()
        if self._pending:
            self._encode_batch()
        self._tell()
        self._slice.table = self._job.table(kept, [self.results[key] for key in keys]) if kept else None
        return self._slice

    def _take(self, pending: PendingRow) -> bool:
        """Put a row's input into the batch, unless an equal one was there; False: the row is rejected."""
        if pending.key in self.results or pending.key in self._pending:
            return True
        try:
            self._pending[pending.key] = pending.row, pending.input(self._job.decode)
        except UnreadableRowError as error:
            row, number = pending.row, self._slice.start + self._slice.rows - 1
            entry = {"row": number, "id": row.id, "image_id": row.image_id, "reason": str(error)}
            self._slice.rejected.append(entry)
            self._reject(entry)
            return False
        return True

    def _encode_batch(self) -> None:
        """Encode the pending inputs."""
        rows, inputs = zip(*self._pending.values(), strict=True)
        self.results.update(zip(self._pending, self._job.encode(rows, inputs), strict=True))
        self._pending.clear()
        self._tell()

    def _tell(self) -> None:
        """Tell how far this is, where it went on."""
        self._advance(self._slice.rows - self._told)
        self._told = self._slice.rows
