"""The middle of an encoding job: one slice of the reader's rows becomes one shard.

What a batch holds can change the last bits of a result. So batches are made from the order of the
rows alone and never reach over a slice's end: whoever encodes a slice, whenever and after whatever,
makes the same batches and the same shard.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.encoders.embedding.ahead import DecodedAhead, PendingRow, one_ahead
from pipeline.encoders.embedding.decoding import DecodeRows, decode_rows
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow, Reader, RowKey, UnreadableRowError
from pipeline.encoders.mllm.interface import TOGETHER, MllmInput

ROWS_A_THREAD = 2 * TOGETHER
"""Rows that are being decoded or wait for their batch, for each thread; in all no more than a batch."""


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
    decode: DecodeRows = decode_rows
    """Called in threads."""
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

    While a batch is encoded, threads read and decode the rows of the next one. An engine on a GPU has nothing to do
    between two batches, so as little as possible is done there.

    Args:
        reader: The rows. A thread goes through them.
        job: What to make of them.
        start: The first row, a multiple of `options.rows_per_shard`.
        options: The sizes of slices and batches, and the number of threads.
        reject: Called with the entry of every row that cannot be encoded. It may end the job with an exception.
        advance: Called after every batch, with the number of rows that it went on by.

    Yields:
        The slices, in order. One is in memory at a time.
    """
    window = min(options.batch_size, ROWS_A_THREAD * options.workers)
    with DecodedAhead(reader.rows(start), job.decode, options.workers, window) as rows:
        made = _batches(rows, job.decode, start, options)
        encoder = _SliceEncoder(job, start)
        with closing(one_ahead(made) if options.workers else made) as batches:
            for batch in batches:
                for entry in batch.rejected:
                    reject(entry)
                encoder.encode(batch)
                advance(batch.rows)
                if batch.is_last:
                    yield encoder.slice()
                    encoder = _SliceEncoder(job, batch.end)


@dataclass
class _Batch:
    """The rows of a slice up to a full batch of new inputs, or up to the slice's end."""

    start: int
    rows: int = 0
    kept: list[tuple[EncoderRow, RowKey]] = field(default_factory=list)
    """All that can be encoded."""
    inputs: dict[RowKey, tuple[EncoderRow, MllmInput]] = field(default_factory=dict)
    """Those that no earlier row of the slice has."""
    rejected: list[dict[str, Any]] = field(default_factory=list)
    is_last: bool = False
    """Of its slice."""

    @property
    def end(self) -> int:
        """The number of the row after the last one."""
        return self.start + self.rows

    def take(self, pending: PendingRow, decode: DecodeRows, is_known: bool) -> None:
        """Add a row, with its input unless that is known already, or what is wrong with it."""
        row, number = pending.row, self.end
        self.rows += 1
        if not is_known:
            found = pending.input(decode)
            if isinstance(found, UnreadableRowError):  # not raised: its traceback would keep the batch in memory
                self.rejected.append({"row": number, "id": row.id, "image_id": row.image_id, "reason": str(found)})
                return
            self.inputs[pending.key] = row, found
        self.kept.append((row, pending.key))


def _batches(rows: DecodedAhead, decode: DecodeRows, start: int, options: JobOptions) -> Generator[_Batch]:
    """The batches of all slices, in order; each slice has at least one."""
    for first in itertools.count(start, options.rows_per_shard):
        rows.known = known = set()
        batch = _Batch(first)
        for pending in itertools.islice(rows, options.rows_per_shard):
            batch.take(pending, decode, pending.key in known)
            known.update(batch.inputs.keys() & {pending.key})
            if len(batch.inputs) == options.batch_size and batch.end < first + options.rows_per_shard:
                yield batch
                batch = _Batch(batch.end)
        if batch.end == first:
            return
        batch.is_last = True
        yield batch


class _SliceEncoder:
    """Encodes one slice, batch by batch, every distinct input once."""

    def __init__(self, job: EncoderJob, start: int):
        self._job, self._slice = job, Slice(start)
        self._kept: list[tuple[EncoderRow, RowKey]] = []
        self._results: dict[RowKey, Any] = {}

    def encode(self, batch: _Batch) -> None:
        """Encode the new inputs of the slice's next batch."""
        self._slice.rows += batch.rows
        self._slice.rejected += batch.rejected
        self._kept += batch.kept
        if batch.inputs:
            rows, inputs = zip(*batch.inputs.values(), strict=True)
            self._results.update(zip(batch.inputs, self._job.encode(rows, inputs), strict=True))

    def slice(self) -> Slice:
        """The slice that these batches make."""
        if self._kept:
            rows, keys = zip(*self._kept, strict=True)
            self._slice.table = self._job.table(rows, [self._results[key] for key in keys])
        return self._slice
