"""The matrix products of a block, and their gradients, in half precision or in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.gpu.kernels import norm
from pipeline.gpu.kernels.quantise import Quantised, quantise, with_columns

LARGEST_GRADIENT = 128.0
"""Where the largest gradient of the last layer is put in 8 bits: 450 times below the largest number there is."""


class Purpose(NamedTuple):
    """What a block's products are used for."""

    float32_weights: bool = False
    """The weights, and so their gradients, are float32."""
    gradients: bool = False
    """Some gradient will be asked for."""
    trained: bool = False
    """The gradients of the weights will be, too."""


SAMPLING = Purpose()


class HalfPrecision:
    """Products in the type of the tokens. The operand of a product is the tensor itself.

    Args:
        weights: [E, D] each, by name.
        purpose: Which gradients will be asked for.
    """

    fp8 = False

    def __init__(self, weights: dict[str, Tensor], purpose: Purpose = SAMPLING):
        self.weights: dict[str, Any] = weights
        self.purpose = purpose

    @property
    def gradient_factor(self) -> Tensor | None:
        """What 8-bit gradients are multiplied by; None: gradients are not quantised."""
        return None

    def operand(self, tokens: Tensor) -> Any:
        """What a product reads of tokens [B, M, D]."""
        return tokens

    def linear(self, name: str, operand: Any, bias: Tensor | None = None) -> Tensor:
        """A linear layer: [B, M, E]."""
        return F.linear(operand, self.weights[name], bias)

    def feed_forward(self, operand: Any, bias: Tensor) -> tuple[Tensor | None, Any]:
        """The inner layer without its bias, where gradients need it, and the outer layer's operand: its activation."""
        if not self.purpose.gradients and operand.is_cuda:  # one kernel; on a CPU torch's form of it is the exact GELU
            weight, flat = self.weights["inner"], operand.flatten(0, 1)
            activated = torch._addmm_activation(bias.to(flat.dtype), flat, weight.t(), use_gelu=True)
            return None, activated.view(*operand.shape[:2], -1)
        inner = self.linear("inner", operand)
        return inner, norm.gelu(inner, bias)

    def saved(self, operand: Any) -> Tensor | None:
        """What the gradient of a weight will need of an operand."""
        return operand

    def begin_backward(self, grad: Tensor) -> None:
        """Called with the gradient that a block's backward pass begins with."""

    def gradient_operand(self, grad: Tensor, sums: bool = False) -> tuple[Any, Tensor | None]:
        """What products read of a gradient [B, M, E], and with `sums` its sums over all tokens [E] float32."""
        return grad, norm.column_sums(grad) if sums else None

    def gelu_backward(self, inner: Tensor, bias: Tensor, grad: Tensor) -> tuple[Any, Tensor]:
        """As `gradient_operand`, of the gradient before the activation."""
        return norm.gelu_backward(inner, bias, grad)

    def input_gradient(self, name: str, grad: Any) -> Tensor:
        """The gradient of a product's input [B, M, D], from the operand of its output's gradient."""
        return F.linear(grad, self.weights[name].t())

    def weight_gradient(self, grad: Any, saved: Any) -> Tensor:
        """The gradient of a product's weight [E, D]."""
        return weight_gradient(grad, saved, self.purpose.float32_weights)


class EightBit(HalfPrecision):
    """Products of 8-bit numbers, with sums in float32.

    Tokens become e4m3 times a constant, weights e4m3 by their largest number, and gradients e5m2 times one factor for
    all. That factor comes from the gradient of the last layer, at the start of every backward pass.

    Args:
        weights: [E, D] each, by name.
        dtype: Of the tokens, and of what the products return.
        purpose: Which gradients will be asked for.
        scale: Of the gradients; needed for training.

    Raises:
        ValueError: A size is no multiple of 16.
    """

    fp8 = True

    def __init__(
        self,
        weights: dict[str, Tensor],
        dtype: torch.dtype,
        purpose: Purpose = SAMPLING,
        scale: GradientScale | None = None,
    ):
        super().__init__({}, purpose)
        self.dtype, self.scale = dtype, scale
        self.shape: tuple[int, int] = (0, 0)
        """B and M of the tokens."""
        device = next(iter(weights.values())).device
        self.factor = torch.full((), norm.FP8_SCALE, device=device)
        self.inverse = torch.full((), 1.0 / norm.FP8_SCALE, device=device)
        for name, weight in weights.items():
            if any(size % 16 for size in weight.shape):
                layer = f"a layer of {weight.shape[1]} to {weight.shape[0]} numbers"
                raise ValueError(f"fp8: {layer}; both must be multiples of 16")
            largest = torch.linalg.vector_norm(weight, float("inf"), dtype=torch.float32).clamp(min=1e-12)
            factor = torch.finfo(norm.FP8).max / largest
            self.weights[name] = quantise(weight, factor, norm.FP8, purpose.gradients)[0], 1.0 / factor

    @property
    def gradient_factor(self) -> Tensor | None:
        return None if self.scale is None else self.scale.factor

    def operand(self, tokens: Tensor) -> Quantised:
        self.shape, rows = (tokens.shape[0], tokens.shape[1]), tokens.flatten(0, 1)
        if self.purpose.trained and len(rows) % 16:
            given = f"{tokens.shape[0]} samples of {tokens.shape[1]} tokens"
            raise ValueError(f"fp8: {given}; their number must be a multiple of 16")
        if rows.dtype == norm.FP8:
            return with_columns(rows, self.purpose.trained)
        return quantise(rows, self.factor, norm.FP8, self.purpose.trained)[0]

    def linear(self, name: str, operand: Quantised, bias: Tensor | None = None) -> Tensor:
        weight, scale = self.weights[name]
        options: dict[str, Any] = {"bias": bias, "out_dtype": self.dtype, "use_fast_accum": True}
        return torch._scaled_mm(operand.rows, weight.rows.t(), self.inverse, scale, **options).unflatten(0, self.shape)

    def feed_forward(self, operand: Quantised, bias: Tensor) -> tuple[Tensor | None, Quantised]:
        inner = self.linear("inner", operand)
        activated = norm.gelu(inner, bias, fp8=True).flatten(0, 1)
        return inner, with_columns(activated, self.purpose.trained)

    def saved(self, operand: Quantised) -> Tensor | None:
        return operand.columns

    def begin_backward(self, grad: Tensor) -> None:
        assert self.scale is not None
        factor = self.scale.factor if self.scale.factor is not None else self.scale.observe(grad)
        self.inverse_gradient = torch.reciprocal(factor)

    def gradient_operand(self, grad: Tensor, sums: bool = False) -> tuple[Quantised, Tensor | None]:
        rows = grad.flatten(0, 1)
        if rows.dtype == norm.FP8_GRADIENT:
            return with_columns(rows, self.purpose.trained), None
        assert self.gradient_factor is not None
        return quantise(rows, self.gradient_factor, norm.FP8_GRADIENT, self.purpose.trained, sums)

    def gelu_backward(self, inner: Tensor, bias: Tensor, grad: Tensor) -> tuple[Quantised, Tensor]:
        back, sums = norm.gelu_backward(inner, bias, grad, self.gradient_factor)
        return with_columns(back.flatten(0, 1), self.purpose.trained), sums

    def input_gradient(self, name: str, grad: Quantised) -> Tensor:
        weight, scale = self.weights[name]
        columns = weight.columns.t()
        back = torch._scaled_mm(grad.rows, columns, self.inverse_gradient, scale, out_dtype=self.dtype)
        return back.unflatten(0, self.shape)

    def weight_gradient(self, grad: Quantised, saved: Tensor) -> Tensor:
        out = torch.float32 if self.purpose.float32_weights else self.dtype
        assert grad.columns is not None
        return torch._scaled_mm(grad.columns, saved.t(), self.inverse_gradient, self.inverse, out_dtype=out)


@dataclass
class GradientScale:
    """The factor of a model's 8-bit gradients, a power of two, in the present backward pass."""

    factor: Tensor | None = None

    def observe(self, grad: Tensor) -> Tensor:
        """Set it from the gradient that a backward pass begins with, and return it."""
        largest = torch.linalg.vector_norm(grad, float("inf"), dtype=torch.float32).clamp(min=1e-30)
        self.factor = torch.exp2(torch.floor(torch.log2(LARGEST_GRADIENT / largest)))
        return self.factor


def weight_gradient(grad: Tensor, tokens: Tensor, float32_weights: bool) -> Tensor:
    """A product's gradient of its weight [E, D]; not rounded to the products' type where weights are float32."""
    wider = float32_weights and grad.is_cuda and grad.dtype != torch.float32
    options: dict[str, Any] = {"out_dtype": torch.float32} if wider else {}
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
