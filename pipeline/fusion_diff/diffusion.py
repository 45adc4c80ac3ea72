"""The diffusion process: noising, the loss, and the solver, around `diffusers`' schedulers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from pipeline.config import DiffusionParams


class Diffusion:
    """Gaussian diffusion of embeddings of dimension d (Eq. 2).

    A unit-norm z has a standard deviation of 1 / sqrt(d) in each dimension, so unit noise would drown it. With
    `scale_by_sqrt_dim`, sqrt(d) z is what diffuses. Timesteps count from 0 here, from 1 in the paper.

    Args:
        params: Schedule, prediction and scaling.
        dim: d.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(self, params: DiffusionParams, dim: int):
        if params.train_steps < 1 or dim < 1:
            raise ValueError(f"diffusion: {params.train_steps} steps over dimension {dim}; both must be at least 1")
        if not 0.0 < params.beta_start <= params.beta_end < 1.0:
            raise ValueError(f"diffusion: betas from {params.beta_start} to {params.beta_end} must rise within (0, 1)")
        self.params, self.dim = params, dim
        self.scale = math.sqrt(dim) if params.scale_by_sqrt_dim else 1.0
        self._schedule = {
            "num_train_timesteps": params.train_steps,
            "beta_start": params.beta_start,
            "beta_end": params.beta_end,
            "beta_schedule": params.beta_schedule,
            "prediction_type": params.prediction,
        }
        self._scheduler: Any = DDPMScheduler(**self._schedule)  # diffusers' schedulers carry no types

    @property
    def train_steps(self) -> int:
        """N."""
        return self.params.train_steps

    @property
    def alphas_cumprod(self) -> Tensor:
        """alpha-bar, [N]."""
        return self._scheduler.alphas_cumprod

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps [rows] and noise [rows, d], drawn on the CPU from `generator`."""
        step = torch.randint(self.train_steps, (rows,), generator=generator)
        return step, torch.randn(rows, self.dim, generator=generator)

    def noise(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """z_n (Eq. 2) from embeddings clean [B, d], step [B] and noise [B, d]; float32 [B, d]."""
        return self._scheduler.add_noise(clean.float() * self.scale, noise.float(), step)

    def target(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """What the network is to predict: the noise (Eq. 3), the clean sample, or the velocity between the two.

        They are equivalent up to the weighting of the loss and to a known multiple of z_n, so guidance (Eq. 4) is the
        same combination of any of them. But sampling divides an error in the noise by sqrt(alpha-bar), which starts at
        0.006: a prior trained for minutes cannot afford that. It predicts the clean sample, as DALL-E 2's prior does,
        and so spends nothing on reproducing noise.

        Args:
            clean: Embeddings z_0 [B, d].
            step: n [B].
            noise: [B, d].

        Returns:
            [B, d].
        """
        if self.params.prediction == "epsilon":
            return noise
        scaled = clean.float() * self.scale
        if self.params.prediction == "sample":
            return scaled
        return self._scheduler.get_velocity(scaled, noise.float(), step)

    def unscale(self, sample: Tensor) -> Tensor:
        """Undo the scaling of `noise`."""
        return sample / self.scale

    def loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Eq. 3 and Eq. 5, as a mean over the dimensions and the batch: both [B, d], a scalar back."""
        return F.mse_loss(predicted.float(), target.float())

    def solver(self, steps: int) -> Any:
        """A fresh DPM-Solver++ of second order.

        Args:
            steps: Solver steps, at most the training steps.

        Returns:
            A `diffusers.DPMSolverMultistepScheduler` with its timesteps set.

        Raises:
            ValueError: `steps` is out of its range.
        """
        if not 1 <= steps <= self.train_steps:
            allowed = f"between 1 and the {self.train_steps} training steps"
            raise ValueError(f"sampler: {steps} solver steps are not {allowed}")
        solver: Any = DPMSolverMultistepScheduler(**self._schedule, algorithm_type="dpmsolver++", solver_order=2)
        solver.set_timesteps(steps)
        return solver
