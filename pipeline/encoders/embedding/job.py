"""Encoding at scale: reader -> encoder -> writer, resumable by shard.

The reader yields rows in a fixed order. A slice of them becomes one shard (`slices.py`), here or on
the workers of a Ray cluster (`ray_engine.py`). The writer writes the shards in order. Only a few are
ever in memory, and the finished set is the same, hash for hash, whatever was killed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.artifacts import ArtifactError, Manifest, TableShardWriter, finished_set
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rejected import REJECTED, Rejections
from pipeline.encoders.embedding.rows import EncodingError, Reader
from pipeline.encoders.embedding.slices import EncoderJob, Slice, encode_slices


def run_job(
    reader: Reader, job: EncoderJob, folder: str | Path, identity: dict[str, Any], options: JobOptions
) -> Manifest:
    """Encode what a reader yields into a shard set.

    A finished set of the same identity is left alone. Of an unfinished one the whole shards are kept.
    A row that cannot be decoded goes to `rejected.parquet` in the same folder.

    Args:
        reader: The rows, in an order that is always the same.
        job: What to make of them.
        folder: Where the shard set goes.
        identity: Everything else that the results depend on: the model and the inputs. The batch size is added.
        options: How the job runs.

    Returns:
        The finished set's manifest.

    Raises:
        ArtifactError: There is nothing to encode.
        EncodingError: More than `options.max_rejected_share` of the rows were rejected; the last one is named.
    """
    total = len(reader)
    if not total:
        raise ArtifactError(f"{folder}: there are no rows to encode")
    identity = {**identity, "batch_size": options.batch_size}
    rejections = Rejections.load(folder)

    def check_rejections() -> None:
        _check_share(folder, rejections, options.max_rejected_share, total)

    def reject(entry: dict[str, Any]) -> None:
        rejections.add(entry)
        check_rejections()

    finished = finished_set(folder, job.schema, identity)
    if finished:
        check_rejections()
        return finished
    writer = TableShardWriter(folder, job.schema, identity, options.rows_per_shard, resume=True, companions=(REJECTED,))
    start, shards = rejections.resume_after(writer.shards_done, options.rows_per_shard, total)
    writer.keep_shards(shards)
    check_rejections()
    if options.ray is None and start < total:
        job.start()
    with tqdm(total=total, initial=start, desc=str(folder), unit="row", mininterval=5.0) as progress:
        for encoded in _slices(reader, job, start, options, reject, progress.update):
            rejections.save()  # first: a finished shard without its rejections could not be resumed
            if encoded.table is not None:
                writer.write(encoded.table)
    return writer.close()


def _slices(
    reader: Reader,
    job: EncoderJob,
    start: int,
    options: JobOptions,
    reject: Callable[[dict[str, Any]], None],
    advance: Callable[[int], Any],
) -> Iterator[Slice]:
    """The slices from row `start` on, encoded here or on Ray. Ray reports on a slice when it arrives."""
    if options.ray is None:
        yield from encode_slices(reader, job, start, options, reject, advance)
        return
    from pipeline.encoders.embedding.ray_engine import ray_slices  # takes a package that few installations have

    for encoded in ray_slices(reader, job, range(start, len(reader), options.rows_per_shard), options):
        for entry in encoded.rejected:
            reject(entry)
        yield encoded
        advance(encoded.rows)


def _check_share(folder: str | Path, rejections: Rejections, share: float, total: int) -> None:
    """Raise EncodingError once more than a share of the rows is rejected."""
    if len(rejections) > share * total:
        count = f"{len(rejections)} of {total} rows are rejected, jobs.max_rejected_share is {share}"
        raise EncodingError(f"{folder}: row {rejections.last['id']!r}: {rejections.last['reason']} ({count})")
