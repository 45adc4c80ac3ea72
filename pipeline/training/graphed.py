"""Forward and backward of a micro-batch as one CUDA graph: no Python, and no thousands of single kernel launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Inputs = Sequence[Tensor | None]
Shapes = tuple[Any, ...]
"""Shape and type of every input."""
Recording = tuple[torch.cuda.CUDAGraph, Inputs, tuple[Tensor, dict[str, Tensor]]]
"""A graph, the inputs that it reads, and the loss and metrics that it leaves."""


class GraphedTask(Protocol):
    """A task whose loss falls into what the host prepares and what a GPU computes from it.

    The second part must not read a value back. It should see few combinations of shapes: each is recorded by itself.
    """

    def inputs(
        self, indices: Tensor, generator: torch.Generator, device: torch.device | str, fixed_shapes: bool
    ) -> Inputs:
        """Everything that differs between micro-batches, on the device; `fixed_shapes` asks for few shapes."""

    def loss_of(self, model: nn.Module, *inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss, and metrics."""


class Recorded:
    """Adds the gradients of micro-batches to the parameters' `grad`, by replays wherever the shapes were seen before.

    The first micro-batch of some shapes runs as it is: that compiles, lets cuDNN plan, and allocates the gradients. The
    second is recorded, then replayed like all that follow. Gradients must stay where they are: zero them, do not set
    them to None. All recordings share their memory, since no two run at the same time. When new shapes come, they are
    given up for the memory that running these takes, and made again.

    Args:
        task: What is recorded.
        model: `task.model`, possibly wrapped.
        share: What the gradients of a micro-batch count.
        autocast: The context of the forward pass.
    """

    def __init__(
        self, task: GraphedTask, model: nn.Module, share: float, autocast: Callable[[], AbstractContextManager[Any]]
    ):
        self._task, self._model, self._share, self._autocast = task, model, share, autocast
        self._graphs: dict[Shapes, Recording | None] = {}
        self._pool: Any = None

    def step(
        self, indices: Tensor, generator: torch.Generator, device: torch.device | str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the metrics of the examples at indices [B]."""
        return self(self._task.inputs(indices, generator, device, fixed_shapes=True))

    def __call__(self, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the metrics of one micro-batch; its gradients count `share` of it."""
        shapes = tuple(None if value is None else (value.shape, value.dtype) for value in inputs)
        if shapes not in self._graphs:
            self._graphs, self._pool = dict.fromkeys([*self._graphs, shapes]), None
            return self._compute(inputs)
        found = self._graphs[shapes] or self._record(shapes, inputs)
        graph, own, (loss, metrics) = found
        for mine, given in zip(own, inputs, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given, non_blocking=True)
        graph.replay()
        return loss.clone(), {name: value.clone() for name, value in metrics.items()}  # the next replay overwrites them

    def _record(self, shapes: Shapes, inputs: Inputs) -> Recording:
        own, graph = [None if value is None else value.clone() for value in inputs], torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool):
            result = self._compute(own)
        self._graphs[shapes] = recording = (graph, own, result)
        return recording

    def _compute(self, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        with self._autocast():
            loss, metrics = self._task.loss_of(self._model, *inputs)
        (loss * self._share).backward()
        return loss.detach(), {name: value.detach() for name, value in metrics.items()}


def average_gradients(parameters: Sequence[nn.Parameter], processes: int) -> None:
    """The mean over all processes, in place.

    DistributedDataParallel does it while it computes, which no graph can hold.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    waiting = [torch.distributed.all_reduce(gradient, async_op=True) for gradient in gradients]
    for one in waiting:
        one.wait()
    torch._foreach_mul_(gradients, 1.0 / processes)
