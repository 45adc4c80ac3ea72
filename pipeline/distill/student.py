"""The student: a prior and a Control-Adapter that also see where a jump ends and how strongly it is steered."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.fusion_diff import ControlAdapter, Prior
from pipeline.fusion_diff.conditions import TextBatch
from pipeline.fusion_diff.control import ControlInputs
from pipeline.fusion_diff.layers import timestep_frequencies
from pipeline.fusion_diff.prior import Modulation

RESOLUTION = 100.0
"""A scale's unit in timesteps, as whose features it is given."""


class Scales(NamedTuple):
    """By which each row is steered, [B] float32 both."""

    guidance: Tensor
    """gamma"""
    control: Tensor
    """delta"""


class Limits(NamedTuple):
    """The largest scales that a student learns. The least are zero."""

    guidance_scale: float
    control_scale: float


class JumpEmbedding(nn.Module):
    """What is added to the embedding of the timestep: the jump's end, gamma and delta. Zero at first.

    Args:
        width: D of the prior.
        frequencies: F, the features of each number.
    """

    def __init__(self, width: int, frequencies: int):
        super().__init__()
        self.frequencies = frequencies
        self.inner, self.outer = nn.Linear(3 * frequencies, width), nn.Linear(width, width)
        nn.init.normal_(self.inner.weight, std=0.02)
        for zero in (self.inner.bias, self.outer.weight, self.outer.bias):
            nn.init.zeros_(zero)

    def forward(self, end: Tensor, scales: Scales) -> Tensor:
        """Timesteps [B] at which jumps end, and their scales -> [B, D]."""
        numbers = end, RESOLUTION * scales.guidance, RESOLUTION * scales.control
        features = [timestep_frequencies(part, self.frequencies) for part in numbers]  # each [B, F]
        inner = self.inner(torch.cat(features, dim=1).to(self.inner.weight.dtype))
        return self.outer(nn.functional.silu(inner))


class Student(nn.Module):
    """Predicts the mean clean sample of a jump (`Jumps`) in one pass without guidance.

    It begins as a copy of the teacher. Both of its towers are trained, and one row a query goes through them.

    Args:
        prior: The student's own; its null condition is not used.
        adapter: The student's own.
        limits: The scales that it learns.
    """

    def __init__(self, prior: Prior, adapter: ControlAdapter, limits: Limits):
        super().__init__()
        self.limits = limits
        self.prior, self.adapter = prior.requires_grad_(True), adapter.requires_grad_(True)
        self.prior.null_text.requires_grad_(False)
        self.jump = JumpEmbedding(prior.sizes.width, prior.sizes.time_frequencies)

    @classmethod
    def of(cls, prior: Prior, adapter: ControlAdapter, limits: Limits) -> Student:
        """A student that begins as a copy of these."""
        return cls(copy.deepcopy(prior), copy.deepcopy(adapter), limits)

    def modulation(self, start: Tensor, end: Tensor, scales: Scales) -> Modulation:
        """AdaLN outputs for jumps from timesteps [B] to timesteps [B]."""
        return self.prior.modulation(start, self.jump(end, scales))

    def forward(self, noisy: Tensor, jump: Tensor, text: TextBatch, control: Tensor, scales: Scales) -> Tensor:
        """What the network says of some jumps.

        Args:
            noisy: z_i [B, d].
            jump: Timesteps of its start and its end [2, B].
            text: Token states [B, T, text_dim] and mask [B, T].
            control: z_r,delta [B, d], scaled as embeddings are while they diffuse.
            scales: gamma and delta of each row.

        Returns:
            [B, d] float32; `Jumps.clean` reads it.
        """
        prior, adapter = self.prior, self.adapter
        modulation = self.modulation(jump[0], jump[1], scales)
        context = prior.text_context(*text, rows=len(noisy))
        keys_values = prior.text_keys_values(context)
        states = prior.encode(prior.embed(noisy), modulation, keys_values)
        steering = ControlInputs(adapter.text_keys_values(context), adapter.shift(control))
        delta = scales.control[:, None, None]
        residuals = [delta.to(residual.dtype) * residual for residual in adapter(states, modulation, steering)]
        return prior.output(prior.decode(states[-1], modulation, keys_values, residuals[::-1]), modulation)
