"""Processes that turn prompts into inputs of a vLLM engine.

The image processor holds the interpreter for some milliseconds a picture. On a GPU an engine's steps run in the same
process and would wait for it: there other processes had better do it.
"""

from __future__ import annotations

import copy
import io
import os
import pickle
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

Prompt = dict[str, Any]


def render(renderer: Any, prompt: Prompt) -> Any:
    """The input of an engine that `renderer` (vLLM's) makes of a prompt. Raises ValueError when the prompt is malformed."""
    try:
        (rendered,) = renderer.render_cmpl([prompt])
    except Exception as error:
        if isinstance(error, ValueError) or type(error).__module__ == "vllm.exceptions":
            raise ValueError(str(error)) from None
        raise
    return rendered


class Renderers:
    """`render` in `count` processes, for an engine of configuration `config` (vLLM's VllmConfig), bound to no fewer than `cores`."""

    def __init__(self, config: Any, count: int, cores: Collection[int] | None):
        config = copy.copy(config)
        config.compilation_config = None  # holds the engine's layers, and renders nothing
        self._pool = ProcessPoolExecutor(count, get_context("spawn"), _start, (config, cores))  # CUDA survives no fork

    def render(self, prompt: Prompt) -> Any:
        """As `render`, in one of the processes; several threads may wait for theirs at a time."""
        return pickle.loads(self._pool.submit(_render, prompt).result())

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


_renderer: Any = None
"""Of this process, where it is one of a pool."""


def _start(config: Any, cores: Collection[int] | None) -> None:
    global _renderer
    if cores:
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(1)
    from vllm.renderers import renderer_from_config

    _renderer = renderer_from_config(config)
    _renderer.api_process_rank = os.getpid()  # part of every picture's name, by which the engine tells pictures apart


def _render(prompt: Prompt) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(render(_renderer, prompt))
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    """Tensors as the bytes they are: torch's own way writes a whole file for each."""

    def reducer_override(self, value: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if isinstance(value, Tensor):
            return _tensor, (value.dtype, value.shape, value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return NotImplemented


def _tensor(dtype: torch.dtype, shape: torch.Size, content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=dtype).view(shape) if content else torch.empty(shape, dtype=dtype)
