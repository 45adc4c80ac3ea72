"""The encoding job on Ray Data: slices of the rows go to workers that each hold a replica of the model.

A slice is read, decoded and encoded by one worker, exactly as `encode_slices` does it in one process,
so the shards are the same, hash for hash, however many workers there are and whichever of them die:
Ray starts another one and gives it the slice again. They read the same files, so on several hosts the
data lies on a shared file system. Finished slices come back in order, and this process writes them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import torch
from transformers import AutoConfig

from pipeline.config import EncoderParams, ParameterError
from pipeline.encoders.embedding.rows import Reader
from pipeline.encoders.embedding.slices import EncoderJob, Slice, encode_slices
from pipeline.encoders.hub import not_loaded
from pipeline.encoders.mllm.interface import Mllm, MllmInput, open_mllm

_OPENING = threading.Lock()


class ReplicatedMllm:
    """An `Mllm` that every process opens for itself when it is first asked; only its parameters travel."""

    def __init__(self, params: EncoderParams, device: str = "auto"):
        self.params, self.device = replace(params, engine="local"), device
        try:
            width = (
                AutoConfig.from_pretrained(params.path, revision=params.revision or None).get_text_config().hidden_size
            )
        except (OSError, ValueError) as error:
            raise not_loaded("encoder.path", params.path, params.revision, error) from None
        self.dim = params.dim or width
        self._opened: Mllm | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _replica(self) -> Any:
        with _OPENING:
            if self._opened is None:
                self._opened = open_mllm(self.params, self.device)
            return self._opened

    def prepare(self, one: MllmInput, task: str) -> MllmInput:
        prepare = getattr(self._replica(), "prepare", None)
        return prepare(one, task) if prepare else one

    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        return self._replica().embed(inputs)

    def generate(self, inputs: Sequence[MllmInput], max_new_tokens: int, sequences: int = 1) -> list[list[str]]:
        return self._replica().generate(inputs, max_new_tokens, sequences)


class Worker:
    """A replica: encodes the slices that it is given. Made by Ray in a process of its own."""

    def __init__(self, pickled: bytes, batch_size: int, rows_per_slice: int, workers: int):
        self._reader, self._job, threads = cloudpickle.loads(pickled)
        torch.set_num_threads(threads)
        self._sizes = batch_size, rows_per_slice, workers

    def __call__(self, starts: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        found = [one for start in starts["start"].tolist() for one in self._encode(start)]
        return {"slice": [cloudpickle.dumps(one) for one in found]}

    def _encode(self, start: int) -> Iterator[Slice]:
        batch_size, rows_per_slice, workers = self._sizes
        reader = _Part(self._reader, rows_per_slice)
        yield from islice(encode_slices(reader, self._job, start, batch_size, rows_per_slice, workers), 1)


class _Part:
    """A reader's rows from a start on, no more than a slice of them."""

    def __init__(self, reader: Reader, rows: int):
        self._reader, self._rows = reader, rows

    def __len__(self) -> int:
        return len(self._reader)

    def rows(self, start: int) -> Iterator[Any]:
        return islice(self._reader.rows(start), self._rows)


def ray_slices(
    reader: Reader,
    job: EncoderJob,
    starts: range,
    batch_size: int,
    rows_per_slice: int,
    workers: int,
    params: EncoderParams,
) -> Iterator[Slice]:
    """The slices that begin at `starts`, in order. Raises ParameterError where Ray is missing or the cluster is not there."""
    if not len(starts):
        return
    ray = _connected(params)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    pickled = cloudpickle.dumps((reader, job, torch.get_num_threads()))
    rows = pa.table({"start": pa.array(list(starts), pa.int64())})
    dataset = ray.data.from_arrow([rows.slice(number, 1) for number in range(len(rows))]).map_batches(
        Worker,
        fn_constructor_args=(pickled, batch_size, rows_per_slice, workers),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=params.replicas),
        num_gpus=int(params.vllm.get("tensor_parallel_size", 1)) if torch.cuda.is_available() else 0,
    )
    for row in dataset.iter_rows():
        yield cloudpickle.loads(row["slice"])


def _connected(params: EncoderParams) -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ParameterError(
            f"encoder.engine: ray cannot be imported ({error}); `pip install -e '.[ray]'` installs it"
        ) from None
    if not ray.is_initialized():
        root = str(Path(__file__).resolve().parents[3])
        paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        environment = {"env_vars": {"PYTHONPATH": paths, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "")}}
        address = (
            {"address": params.ray_address}
            if params.ray_address
            else {"num_cpus": max(params.replicas, os.cpu_count() or 1)}
        )
        try:
            ray.init(
                **address, runtime_env=environment, log_to_driver=False, include_dashboard=False, logging_level="ERROR"
            )
        except (ConnectionError, ValueError) as error:
            raise ParameterError(f"encoder.ray_address {params.ray_address!r}: {str(error).splitlines()[0]}") from None
    return ray
