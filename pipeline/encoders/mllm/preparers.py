"""What vLLM does for one input alone, in processes of their own.

A GPU's engine lives in this process, and each of its steps makes thousands of short calls in Python. Threads that
decode and prepare images take the interpreter from it between any two of them. Processes do not.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import multiprocessing
import os
import pickle
import shutil
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.artifacts import StorageError
from pipeline.config import MllmParams, ParameterError
from pipeline.encoders.cores import CORES, use_cores
from pipeline.encoders.mllm.interface import MakeInput, MllmInput, made
from pipeline.encoders.mllm.prompts import as_prompt

SHARED_MEMORY, ROOM = Path("/dev/shm"), 2**33
"""A folder whose files are in memory, and how many bytes must be free there: in bfloat16 two batches of 1,024 images of
448 pixels take 5 GB. Containers often have 64 MiB.
"""
ALIGNED = 64
"""Bytes that an array's place in a file is a multiple of."""
NICE = 10
GPUS = "CUDA_VISIBLE_DEVICES"
Packed = tuple[bytes, str, list[int]]
"""A pickle, the file of its arrays, if they have any bytes, and how many each has."""


def rendered(renderer: Any, params: MllmParams, one: MllmInput | MakeInput, slot: str) -> Any:
    """Make an input's prompt and render it.

    Args:
        renderer: vLLM's.
        params: The model's section.
        one: The input, or a function that makes it.
        slot: As for `as_prompt`.

    Returns:
        The prompt as vLLM's engine takes it, or a ValueError: the model does not take it, or the function raised it.
    """
    try:
        prompt = as_prompt(params, made(one), slot)
    except ValueError as error:
        return error
    try:
        (ready,) = renderer.render_cmpl([prompt])
    except Exception as error:
        if is_rejection(error):
            return ValueError(str(error))  # theirs may not travel between processes
        raise
    return ready


def is_rejection(error: BaseException) -> bool:
    """Whether an error is what vLLM says of a value that it was given."""
    return isinstance(error, ValueError) or type(error).__module__ == "vllm.exceptions"


class Preparers:
    """Processes that render prompts. They start at once, beside whatever this process does next.

    Args:
        count: How many.
    """

    def __init__(self, count: int):
        self.count = count
        in_memory = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > ROOM
        self._folder = tempfile.TemporaryDirectory(prefix="prepared-", dir=SHARED_MEMORY if in_memory else None)
        self._pool, self._replacing = self._start(), threading.Lock()

    def _start(self) -> ProcessPoolExecutor:
        """A pool whose processes start."""
        pool = ProcessPoolExecutor(self.count, _context(), _begin, (CORES,))
        for _ in range(self.count):  # a task makes the pool start a process
            pool.submit(_ready)
        return pool

    def make_ready(self, arguments: str) -> None:
        """Make the processes' renderers, which takes them seconds, while this process does something else.

        Args:
            arguments: As for `render`.
        """
        # Not by a callback of the first task: a pool that breaks calls it while it holds the lock that `submit` wants.
        threading.Thread(target=self._make_each_ready, args=(arguments,), daemon=True).start()

    def _make_each_ready(self, arguments: str) -> None:
        """The first alone: vLLM inspects a model once, in a process, and remembers it.

        After that an idle process takes a task; a busy one already has its renderer.
        """
        with contextlib.suppress(RuntimeError, CancelledError):  # the pool may be closed or broken by then
            self._pool.submit(_make, arguments).result()
            for _ in range(self.count):
                self._pool.submit(_make, arguments)

    def render(
        self, arguments: str, params: MllmParams, inputs: Sequence[MllmInput | MakeInput], slot: str
    ) -> list[Any]:
        """Make some inputs' prompts and render them, in one of the processes. Threads wait here.

        Args:
            arguments: Those of the engine's `vllm.LLM`, as JSON.
            params: The model's section.
            inputs: Each an input, or a function that makes it there.
            slot: As for `as_prompt`.

        Returns:
            For each what `rendered` returns.

        Raises:
            ParameterError: The process was ended from outside. Later calls have new ones.
        """
        pool, given = self._pool, pack((params, inputs, slot), self._folder.name)
        try:
            return unpack(pool.submit(_render_each, self._folder.name, arguments, given).result())
        except BrokenProcessPool:
            if given[1]:
                Path(given[1]).unlink(missing_ok=True)
            self._replace(pool)
            reason = "a process that prepares images was ended from outside, perhaps because memory ran out"
            raise ParameterError(f"jobs.workers: {reason}; fewer workers take less") from None

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        """Start new processes, once for all threads that waited for the old ones."""
        with self._replacing:
            if self._pool is broken:
                self._pool = self._start()

    def close(self) -> None:
        """End the processes and delete their files."""
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()


def _context() -> multiprocessing.context.BaseContext:
    """Processes are forked from one that has imported vLLM: its seconds and its memory are spent once.

    This process itself cannot be forked, since it holds the GPU. That one sees none: nothing in it computes, and each
    of its processes would hold a part of the GPU's memory.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.encoders.mllm.preloaded"])
    seen = os.environ.get(GPUS)
    os.environ[GPUS] = ""
    try:
        forkserver.ensure_running()
    finally:
        del os.environ[GPUS]
        if seen is not None:
            os.environ[GPUS] = seen
    return context


def _begin(cores: frozenset[int] | None) -> None:
    """Set a process up. The engine's thread goes first where cores are short: on it everything else waits."""
    os.nice(NICE)
    torch.set_num_threads(1)
    use_cores(cores)


def _ready() -> None:
    """Nothing: a task makes the pool start a process."""


@functools.cache
def _renderer(arguments: str) -> Any:
    """Made from the engine's arguments: a running engine's configuration holds its layers and their memory."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.renderers import renderer_from_config

    alone = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "data_parallel_size": 1}
    return renderer_from_config(EngineArgs(**(json.loads(arguments) | alone)).create_engine_config())


def _make(arguments: str) -> None:
    """Make the renderer of a process. Where that fails, `_render` says why."""
    with contextlib.suppress(Exception):
        _renderer(arguments)


def _render_each(folder: str, arguments: str, given: Packed) -> Packed:
    """What a process does for some inputs."""
    params, inputs, slot = unpack(given)
    return pack([_render(arguments, params, one, slot) for one in inputs], folder)


def _render(arguments: str, params: MllmParams, one: MllmInput | MakeInput, slot: str) -> Any:
    """One of them."""
    ready = rendered(_renderer(arguments), params, one, slot)
    of_content = json.loads(arguments)["enable_prefix_caching"]
    if isinstance(ready, ValueError) or of_content or "mm_hashes" not in ready:
        return ready
    # Counted by each renderer, and the engine tells images apart by them.
    names = {kind: [f"{os.getpid()}-{name}" for name in names] for kind, names in ready["mm_hashes"].items()}
    return ready | {"mm_hashes": names}


def pack(value: Any, folder: str) -> Packed:
    """Pickle a value for another process.

    Arrays, tensors and images go through a file: a pipe takes them in small pieces, and the interpreter for each.

    Args:
        value: What can be pickled.
        folder: Where the file goes.

    Raises:
        StorageError: There is no room for it.
    """
    arrays: list[pickle.PickleBuffer] = []
    packed = io.BytesIO()
    _Pickler(packed, 5, buffer_callback=arrays.append).dump(value)
    sizes = [array.raw().nbytes for array in arrays]
    if not any(sizes):
        return packed.getvalue(), "", sizes
    handle, path = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            for array in arrays:
                file.write(array.raw())
                file.write(bytes(-file.tell() % ALIGNED))
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            reason = f"no room for {sum(sizes):,} bytes of prepared inputs; a smaller batch_size or max_side takes less"
            raise StorageError(error.errno, reason, folder) from None
        raise
    return packed.getvalue(), path, sizes


def unpack(packed: Packed) -> Any:
    """The value that `pack` was given. Possible once: the file is deleted.

    Its arrays are not copied. They are the file's pages, which are given back with the last of them.
    """
    pickled, path, sizes = packed
    whole = _pages(path) if path else np.empty(0, np.uint8)
    starts = np.cumsum([0, *(size + -size % ALIGNED for size in sizes)])
    return pickle.loads(
        pickled, buffers=[whole[start : start + size] for start, size in zip(starts, sizes, strict=False)]
    )


def _pages(path: str) -> np.ndarray:
    """A file's bytes, mapped. It is deleted, and no descriptor of it stays open, as one would with Python's `mmap`."""
    try:
        return torch.from_file(path, shared=False, size=os.path.getsize(path), dtype=torch.uint8).numpy()
    finally:
        os.unlink(path)


class _Pickler(pickle.Pickler):
    """Tensors and images as arrays: torch's own ways are slow, or take a file descriptor for each tensor."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            flat = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            return _tensor, (flat, value.dtype, tuple(value.shape))
        if isinstance(value, Image.Image):
            return Image.fromarray, (np.asarray(value),)
        return NotImplemented


def _tensor(flat: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A tensor of its bytes."""
    return torch.from_numpy(flat).view(dtype).view(shape)
