"""The whole solver as one piece of work of a fixed size, recorded as a CUDA graph on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.fusion_diff.conditions import TEXT_MULTIPLE
from pipeline.fusion_diff.diffusion import Diffusion
from pipeline.gpu.recording import Recording

SIZES = (1, 2, 4, 8, 16, 32)
"""Rows of a batch; what is asked for is cut and padded to these."""


def solver_weights(diffusion: Diffusion, steps: int) -> Tensor:
    """The solver as a matrix.

    Every solver of diffusion ODEs is linear in the starting noise and the predictions. So `diffusers`' own one, run
    over unit vectors, says what the combinations are.

    Args:
        diffusion: Gives the solver.
        steps: Solver steps N.

    Returns:
        [N + 1, N + 1] float32. Row i holds z at solver step i as a combination of the starting noise (column 0) and
        of the first i predictions (columns 1 to i). The last row is the clean sample.
    """
    solver = diffusion.solver(steps)
    unit = torch.eye(steps + 1)
    rows = [unit[0]]
    for index, step in enumerate(solver.timesteps):
        rows.append(solver.step(unit[index + 1], step, rows[-1], return_dict=False)[0])
    return torch.stack(rows)


class Inputs(NamedTuple):
    """What a graph reads. `control` is None without an adapter, `mask` where every text fills its T tokens."""

    noise: Tensor
    """[B, d]"""
    states: Tensor
    """[B, T, text_dim]"""
    mask: Tensor | None
    """[B, T] bool"""
    control: Tensor | None
    """[B, d]"""

    def each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """A function of every tensor that is there."""
        noise, states, mask, control = (None if part is None else change(part) for part in self)
        assert noise is not None and states is not None
        return Inputs(noise, states, mask, control)


Denoise = Callable[[Tensor, int], Tensor]
"""(z [B, d], index of the solver step) -> prediction [B, d]."""
Prepare = Callable[[Inputs], Denoise]
"""Whatever is computed once a query, and then the denoiser."""


def run_solver(prepare: Prepare, weights: Tensor, inputs: Inputs) -> Tensor:
    """The clean sample [B, d] float32, with `solver_weights` on the device of the inputs."""
    denoise = prepare(inputs)
    shape = len(weights), *inputs.noise.shape
    seen = torch.empty(shape, device=inputs.noise.device)  # [N + 1, B, d]: the noise, then predictions
    seen[0] = inputs.noise
    for index in range(len(weights) - 1):
        seen[index + 1] = denoise(_combine(weights[index], seen, index + 1), index)
    return _combine(weights[-1], seen, len(weights))


def _combine(weights: Tensor, seen: Tensor, count: int) -> Tensor:
    """Sum of the first `count` of seen [N + 1, B, d], weighted: [B, d]."""
    return (weights[:count, None, None] * seen[:count]).sum(0)


class FixedSizes:
    """Runs the solver for any number of rows in pieces of `SIZES`, as CUDA graphs where the inputs are on a GPU."""

    def __init__(self, prepare: Prepare, weights: Tensor):
        self._prepare, self._weights = prepare, weights
        self._graphs: dict[tuple[int, int, bool], Recording] = {}
        self._pool = torch.cuda.graph_pool_handle() if weights.is_cuda else None

    def __call__(self, inputs: Inputs) -> Tensor:
        """Clean samples [B, d] for B rows."""
        inputs = _pad_text(inputs)
        parts = []
        for first in range(0, len(inputs.noise), SIZES[-1]):
            piece = inputs.each(itemgetter(slice(first, first + SIZES[-1])))
            rows = len(piece.noise)
            size = next(size for size in SIZES if size >= rows)
            parts.append(self._run(piece.each(partial(_pad_rows, rows=size)))[:rows])
        return torch.cat(parts)

    def _run(self, inputs: Inputs) -> Tensor:
        if self._pool is None:
            return self._solve(*inputs)
        shape = (*inputs.states.shape[:2], inputs.mask is None)
        if shape not in self._graphs:
            self._graphs[shape] = Recording(self._solve, inputs, self._pool)
        return self._graphs[shape](*inputs)

    def _solve(self, *inputs: Any) -> Tensor:
        return run_solver(self._prepare, self._weights, Inputs(*inputs))


def _pad_rows(value: Tensor, rows: int) -> Tensor:
    """The last row repeated up to `rows`: a real one, so that no kernel meets a text without tokens."""
    missing = rows - len(value)
    return value if missing == 0 else torch.cat([value, value[-1:].expand(missing, *value.shape[1:])])


def _pad_text(inputs: Inputs) -> Inputs:
    """Texts padded to a multiple of TEXT_MULTIPLE tokens, with a mask where something is hidden."""
    states, mask = inputs.states, inputs.mask
    missing = -states.shape[1] % TEXT_MULTIPLE
    if missing == 0:
        return inputs
    mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask
    pad = torch.nn.functional.pad
    return inputs._replace(states=pad(states, (0, 0, 0, missing)), mask=pad(mask, (0, missing)))
