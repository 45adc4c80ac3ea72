"""A block's matrix products, and their gradients, in half precision or in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.gpu.kernels import norm, small
from pipeline.gpu.kernels.small import Small

MOST = 128.0
"""Where the largest gradient of the last layer is put in 8 bits: 450 times below the largest number there is."""


class Half:
    """In the type of the tokens: what products read is the tensor itself."""

    bits8 = False
    grad_factor: Tensor | None = None

    def __init__(self, weights: dict[str, Tensor], exact: bool = False, gradients: bool = False, trained: bool = False):
        """weights: [E, D] each; exact: their gradients are float32. gradients: some will be asked for; trained: the weights' too."""
        self.weights, self.exact, self.gradients, self.trained = weights, exact, gradients, trained

    def read(self, tokens: Tensor) -> Any:
        """What a product reads of tokens [B, M, D]."""
        return tokens

    def linear(self, name: str, factor: Any, bias: Tensor | None = None) -> Tensor:
        """[B, M, D] -> [B, M, E]"""
        return F.linear(factor, self.weights[name], bias)

    def feed(self, factor: Any, bias: Tensor) -> tuple[Tensor | None, Any]:
        """The inner layer without its bias, where gradients need it, and what the outer one reads: its activation."""
        if not self.gradients and factor.is_cuda:  # as one kernel; on a CPU torch's form of it is the exact GELU
            weight, flat = self.weights["inner"], factor.flatten(0, 1)
            return None, torch._addmm_activation(bias.to(flat.dtype), flat, weight.t(), use_gelu=True).view(
                *factor.shape[:2], -1
            )
        between = self.linear("inner", factor)
        return between, norm.gelu(between, bias)

    def kept(self, factor: Any) -> Tensor:
        """What a weight's gradient will need of what was read."""
        return factor

    def begin(self, grad: Tensor) -> None:
        """Before the first gradient."""

    def read_grad(self, grad: Tensor, sums: bool = False) -> tuple[Any, Tensor | None]:
        """What products read of a gradient [B, M, E], and its sums over all tokens [E] float32."""
        return grad, norm.column_sums(grad) if sums else None

    def gelu_backward(self, between: Tensor, bias: Tensor, grad: Tensor) -> tuple[Any, Tensor]:
        """As `read_grad`, of the gradient before the activation."""
        return norm.gelu_backward(between, bias, grad)

    def back(self, name: str, grad: Any) -> Tensor:
        """The gradient of a product's input, [B, M, D]."""
        return F.linear(grad, self.weights[name].t())

    def weigh(self, grad: Any, kept: Tensor) -> Tensor:
        """The gradient of a product's weight, [E, D]."""
        return weight_grad(grad, kept, self.exact)


class Bits8(Half):
    """In 8 bits: tokens as e4m3 times a constant, weights as e4m3 by their largest number, gradients as e5m2 times one factor for all.

    That factor comes from the gradient of the last layer, at the start of every backward pass. The sums are float32. ValueError on
    sizes that no such product takes.
    """

    bits8 = True

    def __init__(
        self,
        weights: dict[str, Tensor],
        dtype: torch.dtype,
        exact: bool = False,
        gradients: bool = False,
        trained: bool = False,
        scaling: Scaling | None = None,
    ):
        super().__init__({}, exact, gradients, trained)
        self.dtype, self.scaling, self.shape = dtype, scaling, ()
        device = next(iter(weights.values())).device
        self.factor, self.inverse = (
            torch.full((), value, device=device) for value in (norm.SMALL_SCALE, 1.0 / norm.SMALL_SCALE)
        )
        for name, weight in weights.items():
            if any(size % 16 for size in weight.shape):
                raise ValueError(
                    f"fp8: a layer of {weight.shape[1]} to {weight.shape[0]} numbers; both must be multiples of 16"
                )
            factor = torch.finfo(norm.SMALL).max / torch.linalg.vector_norm(
                weight, float("inf"), dtype=torch.float32
            ).clamp(min=1e-12)
            self.weights[name] = small.quantise(weight, factor, norm.SMALL, gradients)[0], 1.0 / factor

    @property
    def grad_factor(self) -> Tensor:
        return self.scaling.factor

    def read(self, tokens: Tensor) -> Small:
        self.shape, rows = tokens.shape[:2], tokens.flatten(0, 1)
        if self.trained and len(rows) % 16:
            raise ValueError(
                f"fp8: {tokens.shape[0]} samples of {tokens.shape[1]} tokens; their number must be a multiple of 16"
            )
        if rows.dtype == norm.SMALL:
            return small.turned(rows, self.trained)
        return small.quantise(rows, self.factor, norm.SMALL, self.trained)[0]

    def linear(self, name: str, factor: Small, bias: Tensor | None = None) -> Tensor:
        weight, scale = self.weights[name]
        given = {"bias": bias, "out_dtype": self.dtype, "use_fast_accum": True}
        return torch._scaled_mm(factor.rows, weight.rows.t(), self.inverse, scale, **given).unflatten(0, self.shape)

    def feed(self, factor: Small, bias: Tensor) -> tuple[Tensor | None, Small]:
        between = self.linear("inner", factor)
        return between, small.turned(norm.gelu(between, bias, small=True).flatten(0, 1), self.trained)

    def kept(self, factor: Small) -> Tensor:
        return factor.columns

    def begin(self, grad: Tensor) -> None:
        if self.scaling.factor is None:
            self.scaling.observe(grad)
        self.inverse_grad = 1.0 / self.scaling.factor

    def read_grad(self, grad: Tensor, sums: bool = False) -> tuple[Small, Tensor | None]:
        rows = grad.flatten(0, 1)
        if rows.dtype == norm.GRAD:
            return small.turned(rows, self.trained), None
        return small.quantise(rows, self.grad_factor, norm.GRAD, self.trained, sums)

    def gelu_backward(self, between: Tensor, bias: Tensor, grad: Tensor) -> tuple[Small, Tensor]:
        back, sums = norm.gelu_backward(between, bias, grad, self.grad_factor)
        return small.turned(back.flatten(0, 1), self.trained), sums

    def back(self, name: str, grad: Small) -> Tensor:
        weight, scale = self.weights[name]
        return torch._scaled_mm(
            grad.rows, weight.columns.t(), self.inverse_grad, scale, out_dtype=self.dtype
        ).unflatten(0, self.shape)

    def weigh(self, grad: Small, kept: Tensor) -> Tensor:
        out = torch.float32 if self.exact else self.dtype
        return torch._scaled_mm(grad.columns, kept.t(), self.inverse_grad, self.inverse, out_dtype=out)


class Scaling:
    """The factor of a model's gradients in 8 bits, a power of two, of the present backward pass."""

    def __init__(self) -> None:
        self.factor: Tensor | None = None

    def observe(self, grad: Tensor) -> None:
        """From the gradient that a backward pass begins with."""
        largest = torch.linalg.vector_norm(grad, float("inf"), dtype=torch.float32).clamp(min=1e-30)
        self.factor = torch.exp2(torch.floor(torch.log2(MOST / largest)))


def weight_grad(grad: Tensor, tokens: Tensor, exact: bool) -> Tensor:
    """A product's gradient of its weight. Float32 weights get theirs without rounding it to the products' type."""
    options = {"out_dtype": torch.float32} if exact and grad.is_cuda and grad.dtype != torch.float32 else {}
    return torch.mm(grad.flatten(0, -2).t(), tokens.flatten(0, -2), **options)


def stacked(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Weights or biases of several layers below each other; a single one of the right type is itself."""
    if len(parts) == 1:
        return parts[0].to(dtype)
    rows = [len(part) for part in parts]
    joined = torch.empty(sum(rows), *parts[0].shape[1:], dtype=dtype, device=parts[0].device)
    for place, part in zip(joined.split(rows), parts, strict=True):
        place.copy_(part)
    return joined
