"""Functions of tensors as CUDA graphs: recorded once, and replayed without a launch for every kernel."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class Recording:
    """A function, recorded for inputs of one shape.

    Args:
        call: Returns a tensor, and neither waits for the GPU nor copies to it.
        inputs: Tensors like those of every later call. None stands for None.
        pool: The memory that some graphs share, one of which runs at a time.
    """

    def __init__(self, call: Callable[..., Tensor], inputs: Sequence[Tensor | None], pool: Any):
        self._inputs = [None if given is None else given.clone() for given in inputs]
        main, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(main)
        with torch.cuda.stream(aside):  # compiles and allocates what must not happen while recording
            call(*self._inputs)
        main.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # torch leaves its own stream current where a recording fails; thread_local: other threads may use the GPU
        with (
            torch.cuda.stream(main),
            torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"),
        ):
            self._output = call(*self._inputs)

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """What the function returns; a copy, since the next call overwrites the graph's own."""
        for own, given in zip(self._inputs, inputs, strict=True):
            if own is not None and given is not None:
                own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output.clone()


class Recorded:
    """A function that is recorded for every shape of its inputs, and called as it is where that fails.

    Args:
        call: See `Recording`.
    """

    def __init__(self, call: Callable[..., Tensor]):
        self._call, self._pool = call, torch.cuda.graph_pool_handle()
        self._recordings: dict[tuple[torch.Size | None, ...], Callable[..., Tensor]] = {}
        self._lock = threading.Lock()  # a recording's inputs are one caller's at a time

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """What the function returns."""
        shapes = tuple(None if given is None else given.shape for given in inputs)
        with self._lock:
            if shapes not in self._recordings:
                self._recordings[shapes] = self._record(inputs)
            return self._recordings[shapes](*inputs)

    def _record(self, inputs: Sequence[Tensor | None]) -> Callable[..., Tensor]:
        try:
            return Recording(self._call, inputs, self._pool)
        except RuntimeError as error:
            log.warning("not recorded as a CUDA graph, so slower: %s", error)
            return self._call


def record(module: nn.Module) -> None:
    """Let a module's forward pass be recorded. It is for inference, and its weights keep their place.

    Args:
        module: In evaluation mode, on a GPU. Its inputs are given by position; it returns a tensor.
    """
    module.forward = Recorded(module.forward)
