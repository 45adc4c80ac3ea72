"""The residual stream behind a fused block, whose last sum is left to the kernel that reads it next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.gpu.kernels import norm
from pipeline.gpu.kernels.norm import GatedBranch
from pipeline.gpu.products import GradientScale


@dataclass(frozen=True)
class PendingSum:
    """hidden + gate * (branch + bias): the tokens [B, M, D] behind a block, not added up yet.

    The plain model hands it from block to block in the place of a tensor.
    """

    hidden: Tensor
    """[B, M, D]"""
    branch: GatedBranch
    """What the block's last sub-layer adds."""
    gradient_scale: GradientScale | None = None
    """Of 8-bit gradients, which begin where the stream ends."""

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, rows: slice) -> PendingSum:
        """Some rows of the batch."""
        output, bias, gate = self.branch
        branch = GatedBranch(output[rows], bias, gate[rows] if len(gate) > 1 else gate)
        return PendingSum(self.hidden[rows], branch, self.gradient_scale)

    def summed(self) -> Tensor:
        """The sum [B, M, D]."""
        return _GateNorm.apply(self.hidden, *self.branch, None, None, None)

    def modulated(self, shift: Tensor, scale: Tensor) -> Tensor:
        """`layers.modulate` of the sum, [B, M, D]; shift and scale [B or 1, 1, D]."""
        return _GateNorm.apply(self.hidden, *self.branch, shift, scale, self.gradient_scale)


class _GateNorm(torch.autograd.Function):
    """`norm.gate_norm` alone: the modulated tokens, or the sum where there is no shift and scale."""

    @staticmethod
    def forward(  # noqa: PLR0913  # autograd passes tensors one by one
        ctx: Any,
        hidden: Tensor,
        output: Tensor,
        bias: Tensor,
        gate: Tensor,
        shift: Tensor | None,
        scale: Tensor | None,
        gradient_scale: GradientScale | None,
    ) -> Tensor:
        modulation = None if shift is None or scale is None else (shift, scale)
        normed = norm.gate_norm(hidden, GatedBranch(output, bias, gate), None, modulation)
        ctx.save_for_backward(*normed, scale, output, bias, gate)
        ctx.gradient_scale = gradient_scale
        return normed.stream if scale is None else normed.tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *normed, scale, output, bias, gate = ctx.saved_tensors
        grad, branch = grad.contiguous(), GatedBranch(output, bias, gate)
        if scale is None:
            found = norm.gate_norm_backward(grad, None, None, None, branch)
        else:
            found = norm.gate_norm_backward(None, grad, norm.Normed(*normed), scale, branch)
        if ctx.gradient_scale is not None:
            ctx.gradient_scale.observe(found.stream)
        _, _, needs_bias, needs_gate, needs_shift, needs_scale, _ = ctx.needs_input_grad
        return (
            found.stream,
            found.branch,
            found.total.sum(0) if needs_bias and found.total is not None else None,
            _row(found.gate, gate) if needs_gate else None,
            _row(found.shift, scale) if needs_shift else None,
            _row(found.scale, scale) if needs_scale else None,
            None,
        )


def _row(sums: Tensor | None, like: Tensor) -> Tensor | None:
    """Sums over a sample's tokens [B, D] as a gradient [B, 1, D] in the type of `like`."""
    return None if sums is None else sums[:, None].to(like.dtype)
