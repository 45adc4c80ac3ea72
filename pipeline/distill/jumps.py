"""Jumps along the teacher's trajectories: what a student predicts, and the solver that it is used as."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.fusion_diff import Diffusion

CLEAN = 0
"""Stands for the clean end among the timesteps. No solver calls its network there."""


@dataclass(frozen=True)
class Points:
    """Solver points i = 0 .. N of a trajectory z_i = alpha_i x + sigma_i eps; the last one is clean."""

    timesteps: Tensor
    """[N + 1], falling; `CLEAN` at the end."""
    alpha: Tensor
    """[N + 1] float32"""
    sigma: Tensor
    """[N + 1] float32"""

    @classmethod
    def of(cls, diffusion: Diffusion, steps: int) -> Points:
        """Those of the solver with `steps` steps."""
        solver = diffusion.solver(steps)
        ratio = solver.sigmas.double()  # sigma / alpha
        alpha = (1.0 + ratio**2).rsqrt()
        timesteps = torch.cat([solver.timesteps, torch.tensor([CLEAN])])
        return cls(timesteps, alpha.float(), (ratio * alpha).float())


class Jumps(Diffusion):
    """The teacher's process, with jumps between some of its solver's points in the place of steps.

    A jump from point i to point j > i is written with the mean x of the clean samples that the teacher sees between:

        z_j = (sigma_j / sigma_i) z_i + (alpha_j - alpha_i sigma_j / sigma_i) x.

    This is the exact step of a diffusion ODE whose clean sample does not change on the way. To the clean end, x is
    the end itself; for a short jump, it is what the teacher predicts at z_i.

    Args:
        diffusion: The teacher's process.
        teacher_steps: N, solver steps of the teacher.
    """

    def __init__(self, diffusion: Diffusion, teacher_steps: int):
        super().__init__(diffusion.params, diffusion.dim)
        self.teacher_steps, self.points = teacher_steps, Points.of(diffusion, teacher_steps)

    def stops(self, passes: int) -> list[int]:
        """Indices of the solver points at which `passes` jumps of equal length begin and end.

        Raises:
            ValueError: There are more jumps than steps.
        """
        if not 1 <= passes <= self.teacher_steps:
            raise ValueError(f"distilled sampler: {passes} passes are not between 1 and {self.teacher_steps}")
        return [round(number * self.teacher_steps / passes) for number in range(passes + 1)]

    def pairs(self, passes: int) -> list[tuple[int, int]]:
        """Start and end of each of these jumps."""
        return list(itertools.pairwise(self.stops(passes)))

    def mean(self, noisy: Tensor, later: Tensor, start: int, end: int) -> Tensor:
        """x of the jump between two points of a trajectory, each [B, d]."""
        ratio, weight = self._weights(start, end)
        return (later - ratio * noisy) / weight

    def jump(self, noisy: Tensor, mean: Tensor, start: int, end: int) -> Tensor:
        """z_j [B, d] from z_i [B, d] and x [B, d]."""
        ratio, weight = self._weights(start, end)
        return ratio * noisy + weight * mean

    def clean(self, predicted: Tensor, noisy: Tensor, start: int) -> Tensor:
        """x [B, d] from what the student's network says at z_i.

        A network that predicts the clean sample says x. Any other one says the velocity alpha eps - sigma x: an x read
        off predicted noise would be divided by alpha, which is nearly zero where the jumps begin.
        """
        if self.params.prediction == "sample":
            return predicted
        return self.points.alpha[start] * noisy - self.points.sigma[start] * predicted

    def _weights(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.points.alpha, self.points.sigma
        ratio = sigma[end] / sigma[start]
        return ratio, alpha[end] - alpha[start] * ratio

    def solver(self, steps: int) -> JumpSolver:
        """The jumps as a solver of `steps` calls; it stands where `Diffusion.solver` does."""
        return JumpSolver(self, self.stops(steps))


class JumpSolver:
    """As far as sampling needs them, the timesteps and the `step` of a `diffusers` scheduler."""

    def __init__(self, jumps: Jumps, stops: list[int]):
        self._jumps, self._stops = jumps, stops
        self.timesteps = jumps.points.timesteps[stops[:-1]]
        self.ends = jumps.points.timesteps[stops[1:]]
        """Where the jump from each timestep ends."""

    def step(self, predicted: Tensor, step: Tensor, sample: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """One jump; a tuple as a scheduler returns it."""
        index = self.timesteps.tolist().index(int(step))
        start, end = self._stops[index], self._stops[index + 1]
        return (self._jumps.jump(sample, self._jumps.clean(predicted, sample, start), start, end),)
