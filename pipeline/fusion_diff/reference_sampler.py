"""The sampler that every other one is checked against."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.fusion_diff.sampler import Conditions, Denoiser, Sampler, guide


class ReferenceSampler(Sampler):
    """Computes everything anew at every step by the models' own `forward`.

    Slow and easy to read: what the samplers that keep intermediate results are checked against.
    """

    def _denoiser(self, conditions: Conditions, hypotheses: int = 1) -> Denoiser:
        def repeated(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.repeat_interleave(hypotheses, 0)

        states, mask, control = (repeated(part) for part in conditions[:3])
        null = [repeated(part) for part in conditions.negative or ()]

        def denoise(noisy: Tensor, index: int, step: int) -> Tensor:
            steps = torch.full((len(noisy),), step, device=noisy.device)  # [B]
            if self.controlled is None or control is None:
                conditional = self.prior(noisy, steps, states, mask)
            else:
                conditional = self.controlled(noisy, steps, states, mask, control)
            if index >= self.settings.guided_steps:
                return conditional
            return guide(conditional, self.prior(noisy, steps, *null), self.settings.guidance_scale)

        return denoise
