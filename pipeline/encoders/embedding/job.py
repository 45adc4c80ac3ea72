"""Encoding at scale: reader -> encoder -> writer, resumable by shard.

The reader yields rows in a fixed order; a slice of them becomes one shard (`slices.py`), here or on
the workers of a Ray cluster (`ray_engine.py`); the writer writes the shards in order. Only a few are
ever in memory, and the finished set is the same, hash for hash, whatever was killed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from pipeline.artifacts import ArtifactError, Manifest, ShardWriter, finished_set, schemas
from pipeline.config import EncoderParams
from pipeline.encoders.embedding.rejected import REJECTED, Rejections
from pipeline.encoders.embedding.rows import MAX_PIXELS, EncoderRow, Reader, UnreadableRow, decode
from pipeline.encoders.embedding.slices import EncoderJob, Slice, encode_slices
from pipeline.encoders.mllm.interface import Mllm, MllmInput, preparing
from pipeline.encoders.text import TextEncoder

__all__ = ["MAX_PIXELS", "EncoderJob", "EncoderRow", "Reader", "UnreadableRow", "decode"]

ROWS_PER_SHARD = 2_000
"""What a killed run loses at most."""


class EncodingError(ValueError):
    """A row that cannot be encoded, named, or too many of them."""


def job_options(params: EncoderParams) -> dict[str, Any]:
    """The options of `run_job` that are parameters."""
    on_ray = params if params.engine == "ray" else None
    return {"max_rejected_share": params.max_rejected_share, "workers": params.workers, "on_ray": on_ray}


def run_job(
    reader: Reader,
    job: EncoderJob,
    folder: str | Path,
    identity: dict[str, Any],
    batch_size: int,
    rows_per_shard: int = ROWS_PER_SHARD,
    max_rejected_share: float = 0.0,
    workers: int = 2,
    on_ray: EncoderParams | None = None,
) -> Manifest:
    """Encode what `reader` yields into the shard set `folder`: every `rows_per_shard` rows, less those rejected, are a shard.

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
    writer = ShardWriter(folder, job.schema, identity, rows_per_shard, resume=True, ragged=True, companions=(REJECTED,))
    start, shards = rejections.resume_after(writer.shards_done, rows_per_shard, total)
    writer.keep_shards(shards)
    _check_share(folder, rejections, max_rejected_share, total)

    def reject(entry: dict[str, Any]) -> None:
        rejections.add(entry)
        _check_share(folder, rejections, max_rejected_share, total)

    sizes = (start, batch_size, rows_per_shard, workers)
    with tqdm(total=total, initial=start, desc=str(folder), unit="row", mininterval=5.0) as progress:
        for one in (
            _on_ray(reader, job, total, *sizes, reject, on_ray)
            if on_ray
            else encode_slices(reader, job, *sizes, reject)
        ):
            rejections.save()  # first: a finished shard without its rejections could not be resumed
            if one.table is not None:
                writer.write(one.table)
            progress.update(one.rows)
    return writer.close()


def _on_ray(
    reader: Reader,
    job: EncoderJob,
    total: int,
    start: int,
    batch_size: int,
    rows_per_slice: int,
    workers: int,
    reject: Callable[[dict[str, Any]], None],
    params: EncoderParams,
) -> Iterator[Slice]:
    """As `encode_slices`; what was rejected is heard when its slice arrives."""
    from pipeline.encoders.embedding.ray_engine import ray_slices

    for one in ray_slices(
        reader, job, range(start, total, rows_per_slice), batch_size, rows_per_slice, workers, params
    ):
        for entry in one.rejected:
            reject(entry)
        yield one


def _check_share(folder: str | Path, rejections: Rejections, share: float, total: int) -> None:
    if len(rejections) > share * total:
        how_many = f"{len(rejections)} of {total} rows are rejected, encoder.max_rejected_share is {share}"
        raise EncodingError(f"{folder}: row {rejections.last['id']!r}: {rejections.last['reason']} ({how_many})")


def decoding(
    mllm: Mllm, task: str, decode: Callable[[EncoderRow], MllmInput] | None = None
) -> Callable[[EncoderRow], MllmInput]:
    """From a row to what `mllm` embeds (task embed) or answers (generate), with all that can be done for one row alone.

    decode: None: `rows.decode`, to `encoder.max_side` where `mllm` has parameters.
    """
    max_side = mllm.params.max_side if isinstance(getattr(mllm, "params", None), EncoderParams) else 0
    return partial(_decoded, decode or partial(_decode, max_side=max_side), preparing(mllm, task))


_decode = decode


def _decoded(
    decode: Callable[[EncoderRow], MllmInput], prepare: Callable[[MllmInput], MllmInput], row: EncoderRow
) -> MllmInput:
    one = decode(row)
    try:
        return prepare(one)
    except ValueError as error:
        raise UnreadableRow(f"the encoder does not take it: {' '.join(str(error).split())}") from None


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

    return EncoderJob(schema, encode, table, decoding(mllm, "embed", decode))


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
        return pa.Table.from_arrays(
            [ids, pa.array(lengths), pa.ListArray.from_arrays(pa.array(offsets), flat)], schema=schema
        )

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
    manifest = run_job(
        reader, condition_job(encoder), folder, {**identity, "batch_size": batch_size}, batch_size, **options
    )
    encoder.warn_truncated(before)
    return manifest
