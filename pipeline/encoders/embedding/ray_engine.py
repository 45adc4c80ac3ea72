"""The encoding job on Ray Data: slices of the rows go to workers that each hold a replica of the model.

A slice is read, decoded and encoded by one worker, exactly as `encode_slices` does it in one process.
So the shards are the same, hash for hash, however many workers there are and whichever of them die:
Ray starts another one and gives it the slice again. The workers read the same files, so on several
hosts the data lies on a shared file system. Finished slices come back in order, and this process
writes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import torch

from pipeline.compat.numerics import PINS, products_are_portable, use_portable_products
from pipeline.config import ParameterError
from pipeline.encoders.embedding.options import JobOptions, RayOptions
from pipeline.encoders.embedding.rows import EncoderRow, Reader
from pipeline.encoders.embedding.slices import EncoderJob, Slice, encode_slices


def ray_slices(reader: Reader, job: EncoderJob, starts: range, options: JobOptions) -> Iterator[Slice]:
    """Encode slices on the workers of a cluster.

    Args:
        reader: The rows. Like the job, it travels to the workers.
        job: What to make of them.
        starts: The first row of every slice.
        options: Sizes, and the cluster in `options.ray`.

    Yields:
        The slices that begin at `starts`, in order.

    Raises:
        ParameterError: Ray is missing, or the cluster cannot be reached.
    """
    if not len(starts):
        return
    cluster = options.ray or RayOptions()
    ray = _connect(cluster)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    pickled = cloudpickle.dumps((reader, job, torch.get_num_threads(), products_are_portable()))
    rows = pa.table({"start": pa.array(list(starts), pa.int64())})
    dataset = ray.data.from_arrow([rows.slice(number, 1) for number in range(len(rows))]).map_batches(
        SliceWorker,
        fn_constructor_args=(pickled, options),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=cluster.replicas),
        num_gpus=cluster.gpus if torch.cuda.is_available() else 0,
    )
    for row in dataset.iter_rows():
        yield cloudpickle.loads(row["slice"])


class SliceWorker:
    """A replica that encodes the slices that it is given. Ray makes it, in a process of its own."""

    def __init__(self, pickled: bytes, options: JobOptions):
        self._reader, self._job, threads, portable = cloudpickle.loads(pickled)
        torch.set_num_threads(threads)
        if portable:
            use_portable_products()
        self._options = options

    def __call__(self, starts: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        slices = [encoded for start in starts["start"].tolist() for encoded in self._encode(start)]
        return {"slice": [cloudpickle.dumps(encoded) for encoded in slices]}

    def _encode(self, start: int) -> Iterator[Slice]:
        """The one slice that begins at row `start`."""
        reader = _OneSlice(self._reader, self._options.rows_per_shard)
        yield from islice(encode_slices(reader, self._job, start, self._options), 1)


class _OneSlice:
    """A reader's rows from a start on, no more than a slice of them."""

    def __init__(self, reader: Reader, rows: int):
        self._reader, self._rows = reader, rows

    def __len__(self) -> int:
        return len(self._reader)

    def rows(self, start: int) -> Iterator[EncoderRow]:
        return islice(self._reader.rows(start), self._rows)


def _connect(cluster: RayOptions) -> Any:
    """The module `ray`, connected to the cluster, or to one that is started on this machine."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ParameterError(
            f"jobs.engine: ray cannot be imported ({error}); `pip install -e '.[ray]'` installs it"
        ) from None
    if not ray.is_initialized():
        root = str(Path(__file__).resolve().parents[3])
        paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        numerics = {name: os.environ[name] for name in PINS if name in os.environ}
        variables = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", ""), **numerics}
        environment = {"env_vars": variables}
        where = (
            {"address": cluster.address}
            if cluster.address
            else {"num_cpus": max(cluster.replicas, os.cpu_count() or 1)}
        )
        try:
            ray.init(
                **where, runtime_env=environment, log_to_driver=False, include_dashboard=False, logging_level="ERROR"
            )
        except (ConnectionError, ValueError) as error:
            raise ParameterError(f"jobs.ray_address {cluster.address!r}: {str(error).splitlines()[0]}") from None
    return ray
