"""What vLLM does for one input alone, in processes of their own.

A GPU's engine lives in this process, and each of its steps is thousands of short calls of Python. Threads that
prepare pictures take the interpreter from it between any two of them; processes do not.
"""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import pickle
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor


def rendered(renderer: Any, prompt: Mapping[str, Any]) -> Any:
    """A prompt as vLLM's engine takes it. Raises ValueError for one that the model does not take."""
    try:
        (one,) = renderer.render_cmpl([prompt])
    except Exception as error:
        if isinstance(error, ValueError) or type(error).__module__ == "vllm.exceptions":
            raise ValueError(str(error)) from None
        raise
    return one


class Preparers:
    """`count` processes that render prompts. They start at once, beside whatever this process does next."""

    def __init__(self, count: int):
        self.count = count
        self._pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin)  # a fork would take CUDA along
        for _ in range(count):  # a task makes the pool start a process
            self._pool.submit(_ready)

    def render(self, arguments: str, prompt: Mapping[str, Any]) -> Any:
        """As `rendered`, for the engine of these arguments of `vllm.LLM` (JSON); threads wait here."""
        return pickle.loads(self._pool.submit(_render, arguments, dict(prompt)).result())

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _begin() -> None:
    import pipeline  # noqa: F401  (what it declares for torchvision comes before any library that imports that)

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # vLLM on a CPU binds the process that starts these to one core
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    import vllm.renderers  # noqa: F401  (takes seconds, which the engine's start hides)


def _ready() -> None:
    """Nothing: a task makes the pool start a process."""


@functools.cache
def _renderer(arguments: str) -> Any:
    """Made from the engine's arguments: the configuration of one that runs holds its layers and their memory."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.renderers import renderer_from_config

    return renderer_from_config(EngineArgs(**json.loads(arguments)).create_engine_config())


def _render(arguments: str, prompt: dict[str, Any]) -> bytes:
    one = rendered(_renderer(arguments), prompt)
    if "mm_hashes" in one:  # counted by each renderer, and the engine tells pictures apart by them
        one["mm_hashes"] = {kind: [f"{os.getpid()}-{name}" for name in names] for kind, names in one["mm_hashes"].items()}
    packed = io.BytesIO()
    _Pickler(packed, pickle.HIGHEST_PROTOCOL).dump(one)
    return packed.getvalue()


class _Pickler(pickle.Pickler):
    """Tensors as plain bytes: torch's own ways are slow, or take a file descriptor for each."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            flat = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            return _tensor, (flat, value.dtype, tuple(value.shape))
        return NotImplemented


def _tensor(flat: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(flat).view(dtype).view(shape)
