"""Encoding at scale: reader -> encoder -> writer, resumable by shard.

The reader yields rows in a fixed order; the encoder turns batches of inputs into results; the
writer turns whole shards of rows and results into Parquet. Only one shard is ever in memory.

What a batch holds can change the last bits of a result. So batches are made from the order of the
rows alone and never reach over a shard's end: a run that goes on after a kill makes the batches
that an undisturbed run would have made, and the finished set is the same, hash for hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from pipeline.artifacts import ArtifactError, Manifest, ShardWriter, finished_set, schemas
from pipeline.artifacts.images import MAX_PIXELS, ImageError, decode_image
from pipeline.encoders.mllm import Mllm, MllmInput
from pipeline.encoders.rejected import REJECTED, Rejections
from pipeline.encoders.text import TextEncoder

ROWS_PER_SHARD = 2_000
"""What a killed run loses at most."""


class EncodingError(ValueError):
    """A row that cannot be encoded, named, or too many of them."""


class UnreadableRow(ValueError):
    """Why one row cannot be encoded; the job decides what follows from it."""


@dataclass(frozen=True)
class EncoderRow:
    """One input as plain data, not decoded yet."""

    id: str
    text: str = ""
    image: bytes | None = None
    """An encoded picture; None: text alone."""
    image_id: str = ""
    note: Any = None
    """What the writer wants to know besides."""

    @property
    def key(self) -> tuple[bytes, str]:
        """Equal for rows whose inputs are equal."""
        return hashlib.blake2b(self.image or b"", digest_size=16).digest(), self.text


class Reader(Protocol):
    """Rows in an order that is always the same."""

    def __len__(self) -> int:
        """Number of rows."""

    def rows(self, start: int) -> Iterator[EncoderRow]:
        """The rows from number `start` on."""


@dataclass(frozen=True)
class EncoderJob:
    """What to make of the rows."""

    schema: pa.Schema
    encode: Callable[[Sequence[EncoderRow], Sequence[MllmInput]], Sequence[Any]]
    """One batch -> one result an input. Equal inputs of a shard are encoded once."""
    table: Callable[[Sequence[EncoderRow], Sequence[Any]], pa.Table]
    """A whole shard's rows and results -> its table, one row for each."""
    decode: Callable[[EncoderRow], MllmInput] | None = None
    """One row -> what the encoder sees, or UnreadableRow; None: `decode`."""


def run_job(
    reader: Reader, job: EncoderJob, folder: str | Path, identity: dict[str, Any], batch_size: int,
    rows_per_shard: int = ROWS_PER_SHARD, max_rejected_share: float = 0.0,
) -> Manifest:
    """Encode what `reader` yields into the shard set `folder`.

    A finished set of the same identity is left alone; of an unfinished one the whole shards are kept.

    identity must say everything that the results depend on: the model, the inputs, the batch size.
    A row that cannot be decoded goes to `rejected.parquet`; once they
    are more than `max_rejected_share` of the rows, EncodingError names the last one. Raises
    ArtifactError when there is nothing to encode.
    """
    total = len(reader)
    if not total:
        raise ArtifactError(f"{folder}: there are no rows to encode")
    rejections = Rejections.load(folder)
    finished = finished_set(folder, job.schema, identity)
    if finished:
        _check_share(folder, rejections, max_rejected_share, total)
        return finished
    writer = ShardWriter(folder, job.schema, identity, rows_per_shard, resume=True, companions=(REJECTED,))
    start = rejections.resume_after(writer.rows_done)
    _check_share(folder, rejections, max_rejected_share, total)
    shard = _OpenShard(job, batch_size)

    def finish_shard() -> None:
        rejections.save()  # first: a finished shard without its rejections could not be resumed
        writer.write(shard.finish())

    with tqdm(total=total, initial=start, desc=str(folder), unit="row", mininterval=5.0) as progress:
        for number, row in enumerate(reader.rows(start), start):
            try:
                shard.add(row)
            except UnreadableRow as error:
                rejections.add(number, row.id, row.image_id, str(error))
                _check_share(folder, rejections, max_rejected_share, total)
            if len(shard) == rows_per_shard:
                finish_shard()
                shard = _OpenShard(job, batch_size)
            progress.update()
    if len(shard):
        finish_shard()
    rejections.save()
    return writer.close()


def _check_share(folder: str | Path, rejections: Rejections, share: float, total: int) -> None:
    if len(rejections) > share * total:
        how_many = f"{len(rejections)} of {total} rows are rejected, encoder.max_rejected_share is {share}"
        raise EncodingError(f"{folder}: row {rejections.last['id']!r}: {rejections.last['reason']} ({how_many})")


class _OpenShard:
    """The rows of one shard while their batches are encoded."""

    def __init__(self, job: EncoderJob, batch_size: int):
        self._job, self._batch_size = job, batch_size
        self._rows: list[EncoderRow] = []
        self._keys: list[tuple[bytes, str]] = []
        self._pending: dict[tuple[bytes, str], tuple[EncoderRow, MllmInput]] = {}
        self._results: dict[tuple[bytes, str], Any] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: EncoderRow) -> None:
        """Raises UnreadableRow, leaving the shard as it was."""
        key = row.key
        if key not in self._results and key not in self._pending:
            self._pending[key] = (dataclasses.replace(row, image=None), (self._job.decode or decode)(row))
        self._rows.append(dataclasses.replace(row, image=None))
        self._keys.append(key)
        if len(self._pending) == self._batch_size:
            self._encode()

    def _encode(self) -> None:
        rows, inputs = zip(*self._pending.values(), strict=True)
        self._results.update(zip(self._pending, self._job.encode(rows, inputs), strict=True))
        self._pending.clear()

    def finish(self) -> pa.Table:
        if self._pending:
            self._encode()
        return self._job.table(self._rows, [self._results[key] for key in self._keys])


def decode(row: EncoderRow) -> MllmInput:
    """What f_M sees of a row. Raises UnreadableRow with the reason."""
    if row.image is None:
        if not row.text:
            raise UnreadableRow("there is neither an image nor a text")
        return MllmInput(row.text)
    if not row.image:
        raise UnreadableRow("the image has no bytes")
    try:
        return MllmInput(row.text, decode_image(row.image, max_pixels=MAX_PIXELS))
    except ImageError as error:
        raise UnreadableRow(str(error)) from None


def embedding_job(mllm: Mllm, decode: Callable[[EncoderRow], MllmInput] | None = None) -> EncoderJob:
    """f_M's vectors as `schemas.embeddings`. Raises EncodingError naming a row whose vector is not finite."""
    schema = schemas.embeddings(mllm.dim)

    def encode(rows: Sequence[EncoderRow], inputs: Sequence[MllmInput]) -> Sequence[np.ndarray]:
        vectors = mllm.embed(inputs)  # [B, d]
        for row, finite in zip(rows, np.isfinite(vectors).all(axis=1), strict=True):
            if not finite:
                raise EncodingError(f"row {row.id!r}: its embedding has a number that is not finite")
        return vectors

    def table(rows: Sequence[EncoderRow], vectors: Sequence[np.ndarray]) -> pa.Table:
        flat = pa.array(np.concatenate(vectors).astype(np.float32))
        ids = pa.array([row.id for row in rows], pa.string())
        return pa.Table.from_arrays([ids, pa.FixedSizeListArray.from_arrays(flat, mllm.dim)], schema=schema)

    return EncoderJob(schema, encode, table, decode)


def condition_job(encoder: TextEncoder) -> EncoderJob:
    """E_text's token states as `schemas.conditions`."""
    schema = schemas.conditions(encoder.dim)

    def encode(rows: Sequence[EncoderRow], inputs: Sequence[MllmInput]) -> Sequence[np.ndarray]:
        return [states.numpy() for states in encoder.encode_batch([one.text for one in inputs])]

    def table(rows: Sequence[EncoderRow], states: Sequence[np.ndarray]) -> pa.Table:
        lengths = np.array([len(one) for one in states], np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths * encoder.dim)]).astype(np.int32)
        flat = pa.array(np.concatenate([one.reshape(-1) for one in states]))
        ids = pa.array([row.id for row in rows], pa.string())
        return pa.Table.from_arrays([ids, pa.array(lengths), pa.ListArray.from_arrays(pa.array(offsets), flat)], schema=schema)

    return EncoderJob(schema, encode, table)


def run_embedding_job(
    reader: Reader, mllm: Mllm, folder: str | Path, identity: dict[str, Any], batch_size: int, **options: Any
) -> Manifest:
    """z of every row, as `schemas.embeddings`. See `run_job` for the options and errors."""
    return run_job(reader, embedding_job(mllm), folder, {**identity, "batch_size": batch_size}, batch_size, **options)


def run_condition_job(
    reader: Reader, encoder: TextEncoder, folder: str | Path, identity: dict[str, Any], batch_size: int, **options: Any
) -> Manifest:
    """E_text of every row's text, as `schemas.conditions`; one warning counts the (distinct) texts that were cut."""
    before = encoder.truncated
    manifest = run_job(reader, condition_job(encoder), folder, {**identity, "batch_size": batch_size}, batch_size, **options)
    encoder.warn_truncated(before)
    return manifest
