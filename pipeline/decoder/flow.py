"""Flow matching: the straight way between images and noise, and the solver, around `diffusers`' scheduler."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from pipeline.decoder.model import Decoder


class Flow:
    """Rectified flow: x_s = (1 - s) x + s noise, with velocity noise - x.

    Args:
        shift: What levels are shifted by: s -> shift s / (1 + (shift - 1) s).
    """

    def __init__(self, shift: float):
        self.shift = shift

    def draw(self, rows: int, generator: torch.Generator) -> Tensor:
        """Noise levels [rows] in (0, 1): a logistic function of normal numbers, so that most are in the middle."""
        level = torch.randn(rows, generator=generator, device=generator.device).sigmoid()
        return self.shift * level / (1.0 + (self.shift - 1.0) * level)

    def noise(self, clean: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """x_s from x [B, C, S, S], s [B] and noise [B, C, S, S]."""
        return torch.lerp(clean, noise, level[:, None, None, None])

    def sample(self, decoder: Decoder, z: Tensor, noise: Tensor, steps: int, guidance_scale: float) -> Tensor:
        """Follow the flow from noise to what z shows.

        Args:
            decoder: In evaluation mode.
            z: Features of unit norm [B, d].
            noise: Where the way begins [B, C, S, S].
            steps: Euler steps.
            guidance_scale: w of v(null) + w (v(z) - v(null)).

        Returns:
            Float32 [B, C, S, S].
        """
        scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=self.shift)
        scheduler.set_timesteps(steps, device=noise.device)
        guided, x = guidance_scale != 1.0, noise.float()
        twice = torch.cat([z, z]) if guided else z
        dropped = torch.arange(len(twice), device=z.device) >= len(z) if guided else None
        for step, level in zip(scheduler.timesteps, scheduler.sigmas, strict=False):  # the last level is 0
            velocity = decoder(torch.cat([x, x]) if guided else x, level.expand(len(twice)), twice, dropped)
            if guided:
                with_z, without = velocity.chunk(2)
                velocity = torch.lerp(without, with_z, guidance_scale)
            x = scheduler.step(velocity, step, x, return_dict=False)[0]
        return x
