"""Triton kernels around a block's products: AdaLN with the gated residual before it, and the GELU.

Each reads and writes a token once. What a compiler makes of the same lines passes over rows of 1152 numbers twice and
sums over tokens in kernels of its own. In training at the paper's size that is half of the time outside the products.
"""

# mypy: disallow-untyped-defs=False
# (a Triton kernel's arguments have no Python types)

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

EPS = 1e-6
FP8, FP8_SCALE = torch.float8_e4m3fn, 8.0
"""8-bit inputs of products: up to 56, with a relative precision of a sixteenth down to 0.002."""
FP8_GRADIENT = torch.float8_e5m2
"""8-bit gradients."""
CHUNK = 64
"""Tokens that one program of a backward kernel sums over."""


class GatedBranch(NamedTuple):
    """gate * (output + bias): what a sub-layer adds to the residual stream."""

    output: Tensor
    """[B, M, D]: what the sub-layer's last product made, without its bias."""
    bias: Tensor
    """[D]"""
    gate: Tensor
    """[B or 1, 1, D]"""


class Normed(NamedTuple):
    """What `gate_norm` returns."""

    stream: Tensor
    """x: the residual stream [B, M, D]."""
    tokens: Tensor
    """The modulated tokens [B, M, D]."""
    mean: Tensor
    """Of each token of x, [B, M]."""
    rstd: Tensor
    """Inverse standard deviation of each token of x, [B, M]."""


class NormGrads(NamedTuple):
    """Gradients of `gate_norm`; sums over a sample's tokens are [B, D] float32, None for what took no part."""

    stream: Tensor
    """[B, M, D]"""
    branch: Tensor | None
    """[B, M, D]"""
    shift: Tensor | None
    scale: Tensor | None
    gate: Tensor | None
    total: Tensor | None
    """The sum of `branch` itself: what the bias of the layer that made the branch needs."""


@triton.jit
def _gate_norm(
    stream, branch, bias, gate, added, shift, scale, summed, out, mean, rstd, tokens, modulation_stride, gate_stride,
    first_added, added_rows, added_stride, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr, BRANCH: tl.constexpr,
    ADDED: tl.constexpr, NORM: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    sample = row // tokens
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    own = row.to(tl.int64) * WIDTH + column
    value = tl.load(stream + own, mask=inside, other=0.0).to(tl.float32)
    modulated = sample * modulation_stride + column
    if NORM:  # on their way before the sums are waited for
        factor = 1.0 + tl.load(scale + modulated, mask=inside, other=0.0).to(tl.float32)
        offset = tl.load(shift + modulated, mask=inside, other=0.0).to(tl.float32)
    if BRANCH:
        made = tl.load(branch + own, mask=inside, other=0.0).to(tl.float32) + tl.load(
            bias + column, mask=inside, other=0.0
        ).to(tl.float32)
        value += tl.load(gate + sample * gate_stride + column, mask=inside, other=0.0).to(tl.float32) * made
    if ADDED:  # noqa: SIM102  # known when compiled; the other is not
        if sample >= first_added:
            token = (sample - first_added).to(tl.int64) * added_rows + (row % tokens) * added_stride
            value += tl.load(added + token * WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    if BRANCH or ADDED:
        value = value.to(summed.dtype.element_ty)
        tl.store(summed + own, value, mask=inside)
        value = value.to(tl.float32)
    if NORM:
        middle = tl.sum(value, 0) / WIDTH
        centred = tl.where(inside, value - middle, 0.0)
        inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / WIDTH + eps)
        tl.store(out + own, ((centred * inverse * factor + offset) * SCALE).to(out.dtype.element_ty), mask=inside)
        tl.store(mean + row, middle)
        tl.store(rstd + row, inverse)


@triton.jit
def _gate_norm_backward(
    grad, residual, stream, mean, rstd, scale, branch, bias, gate, grad_factor, grad_stream, grad_branch, sums,
    tokens, modulation_stride, gate_stride, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    BRANCH: tl.constexpr, NORM: tl.constexpr, RESIDUAL: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    chunk, sample = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    modulated = sample * modulation_stride + column
    if NORM:
        factor = 1.0 + tl.load(scale + modulated, mask=inside, other=0.0).to(tl.float32)
    if BRANCH:
        gates = tl.load(gate + sample * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
        offset = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    amount = 1.0
    if FP8:
        amount = tl.load(grad_factor)
    shift_sum = tl.zeros([BLOCK], tl.float32)
    scale_sum = tl.zeros([BLOCK], tl.float32)
    gate_sum = tl.zeros([BLOCK], tl.float32)
    stream_sum = tl.zeros([BLOCK], tl.float32)
    for index in range(0, tl.minimum(ROWS, tokens - chunk * ROWS)):
        row = sample.to(tl.int64) * tokens + chunk * ROWS + index
        own = row * WIDTH + column
        total = tl.zeros([BLOCK], tl.float32)
        if RESIDUAL:
            total += tl.load(residual + own, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            given = tl.load(grad + own, mask=inside, other=0.0).to(tl.float32)
            value = tl.load(stream + own, mask=inside, other=0.0).to(tl.float32)
            middle = tl.load(mean + row)
            inverse = tl.load(rstd + row)
            normal = tl.where(inside, (value - middle) * inverse, 0.0)
            shift_sum += given
            scale_sum += given * normal
            inner = given * factor
            total += inverse * (inner - tl.sum(inner, 0) / WIDTH - normal * (tl.sum(inner * normal, 0) / WIDTH))
            total = tl.where(inside, total, 0.0)
            tl.store(grad_stream + own, total.to(grad_stream.dtype.element_ty), mask=inside)
        if BRANCH:
            gate_sum += total * (tl.load(branch + own, mask=inside, other=0.0).to(tl.float32) + offset)
            stream_sum += total
            tl.store(grad_branch + own, (total * gates * amount).to(grad_branch.dtype.element_ty), mask=inside)
    part = sums + (sample.to(tl.int64) * tl.num_programs(0) + chunk) * 4 * WIDTH + column
    if NORM:
        tl.store(part, shift_sum, mask=inside)
        tl.store(part + WIDTH, scale_sum, mask=inside)
    if BRANCH:
        tl.store(part + 2 * WIDTH, gate_sum, mask=inside)
        tl.store(part + 3 * WIDTH, stream_sum * gates, mask=inside)


def gate_norm(
    stream: Tensor,
    branch: GatedBranch | None = None,
    added: Tensor | None = None,
    modulation: tuple[Tensor, Tensor] | None = None,
    fp8: bool = False,
) -> Normed:
    """x = stream + gate * (branch + bias) + added, and LN(x) * (1 + scale) + shift (Eq. 12), in one pass.

    Args:
        stream: [B, M, D].
        branch: What is still to be added to it.
        added: [C, M or 1, D], joins the last C samples.
        modulation: Shift and scale, each [B or 1, 1, D] and strided alike. None: there is no normalisation, and of
            the result only `stream` means something.
        fp8: The modulated tokens times FP8_SCALE, in 8 bits.

    Returns:
        x, and the modulated tokens with their means and inverse deviations.
    """
    samples, tokens, width = stream.shape
    shift, scale = modulation or (None, None)
    norm, summing = scale is not None, branch is not None or added is not None
    summed = torch.empty_like(stream) if summing else stream
    out = torch.empty_like(stream, dtype=FP8 if fp8 else stream.dtype) if norm else stream
    mean, rstd = (torch.empty(samples, tokens, device=stream.device) if norm else stream for _ in range(2))
    output, bias, gate = branch or (None, None, None)
    _gate_norm[(samples * tokens,)](
        *pointers(stream, output, bias, gate, added, shift, scale, other=stream),
        summed,
        out,
        mean,
        rstd,
        tokens,
        _stride(scale),
        _stride(gate),
        0 if added is None else samples - len(added),
        0 if added is None else added.shape[1],
        0 if added is None or added.shape[1] == 1 else 1,
        EPS,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        BRANCH=branch is not None,
        ADDED=added is not None,
        NORM=norm,
        SCALE=FP8_SCALE if fp8 else 1.0,
        num_warps=4,
    )
    return Normed(summed, out, mean, rstd)


def gate_norm_backward(
    residual: Tensor | None,
    grad: Tensor | None,
    normed: Normed | None,
    scale: Tensor | None,
    branch: GatedBranch | None,
    factor: Tensor | None = None,
) -> NormGrads:
    """Gradients of `gate_norm`.

    Args:
        residual: The gradient of x [B, M, D]. None: zero.
        grad: The gradient of the modulated tokens [B, M, D]. None: there was no normalisation.
        normed: What `gate_norm` returned; needed with `grad`.
        scale: [B or 1, 1, D]; needed with `grad`.
        branch: As `gate_norm` got it.
        factor: A scalar; the branch's gradient is multiplied by it, in 8 bits (e5m2).

    Returns:
        The gradients of all inputs.
    """
    given = grad if residual is None else residual
    assert given is not None
    samples, tokens, width = given.shape
    norm, gated = grad is not None, branch is not None
    chunks = triton.cdiv(tokens, CHUNK)
    sums = torch.empty(samples, chunks, 4, width, device=given.device)
    stream = torch.empty_like(given) if norm else given
    grad_branch = torch.empty_like(given, dtype=given.dtype if factor is None else FP8_GRADIENT) if gated else given
    values, _, mean, rstd = normed or (given,) * 4
    output, bias, gate = branch or (None, None, None)
    _gate_norm_backward[(chunks, samples)](
        *pointers(grad, residual, values, mean, rstd, scale, output, bias, gate, factor, other=given),
        stream,
        grad_branch,
        sums,
        tokens,
        _stride(scale),
        _stride(gate),
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        ROWS=CHUNK,
        BRANCH=gated,
        NORM=norm,
        RESIDUAL=residual is not None,
        FP8=factor is not None,
        num_warps=2 if norm and gated else 4 if norm else 8,  # measured on an H100 at a width of 1152
    )
    shift_sum, scale_sum, gate_sum, total = sums.sum(1).unbind(1)  # each [B, D]
    if not gated:
        return NormGrads(stream, None, shift_sum, scale_sum, None, None)
    return NormGrads(stream, grad_branch, shift_sum if norm else None, scale_sum if norm else None, gate_sum, total)


@triton.jit
def _gelu(inner, bias, out, count, WIDTH: tl.constexpr, BLOCK: tl.constexpr, SCALE: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(inner + index, mask=index < count, other=0.0).to(tl.float32)
    value += tl.load(bias + index % WIDTH).to(tl.float32)
    cubic = value + 0.044715 * value * value * value
    sigmoid = tl.sigmoid(1.5957691216057308 * cubic)  # 0.5 (1 + tanh u) = sigmoid(2 u)
    tl.store(out + index, (value * sigmoid * SCALE).to(out.dtype.element_ty), mask=index < count)


@triton.jit
def _gelu_backward(
    inner, bias, grad, grad_factor, out, sums, rows, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    FP8: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    offset = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    amount = 1.0
    if FP8:
        amount = tl.load(grad_factor)
    total = tl.zeros([BLOCK], tl.float32)
    for index in range(0, tl.minimum(ROWS, rows - tl.program_id(1) * ROWS)):
        own = (tl.program_id(1).to(tl.int64) * ROWS + index) * WIDTH + column
        value = tl.load(inner + own, mask=inside, other=0.0).to(tl.float32) + offset
        given = tl.load(grad + own, mask=inside, other=0.0).to(tl.float32)
        square = value * value
        sigmoid = tl.sigmoid(1.5957691216057308 * (value + 0.044715 * value * square))
        slope = sigmoid + value * sigmoid * (1.0 - sigmoid) * 1.5957691216057308 * (1.0 + 0.134145 * square)
        result = given * slope
        total += result
        tl.store(out + own, (result * amount).to(out.dtype.element_ty), mask=inside)
    tl.store(sums + tl.program_id(1).to(tl.int64) * WIDTH + column, total, mask=inside)


def gelu(inner: Tensor, bias: Tensor, fp8: bool = False) -> Tensor:
    """GELU, tanh form, of inner [B, M, E] + bias [E]. fp8: times FP8_SCALE, in 8 bits."""
    out, count = torch.empty_like(inner, dtype=FP8 if fp8 else inner.dtype), inner.numel()
    factor = FP8_SCALE if fp8 else 1.0
    grid = (triton.cdiv(count, 4096),)
    _gelu[grid](inner, bias, out, count, WIDTH=inner.shape[-1], BLOCK=4096, SCALE=factor, num_warps=8)
    return out


def gelu_backward(inner: Tensor, bias: Tensor, grad: Tensor, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The gradient of `inner` [B, M, E], and its sum over all tokens [E] float32.

    factor: a scalar; the gradient is multiplied by it, in 8 bits (e5m2).
    """
    width, rows = inner.shape[-1], inner.numel() // inner.shape[-1]
    each, block = 64, min(1024, triton.next_power_of_2(width))
    back = torch.empty_like(inner, dtype=inner.dtype if factor is None else FP8_GRADIENT)
    sums = torch.empty(triton.cdiv(rows, each), width, device=inner.device)
    grid = (triton.cdiv(width, block), len(sums))
    _gelu_backward[grid](
        inner,
        bias,
        grad,
        *pointers(factor, other=grad),
        back,
        sums,
        rows,
        WIDTH=width,
        BLOCK=block,
        ROWS=each,
        FP8=factor is not None,
        num_warps=4,
    )
    return back, sums.sum(0)


@triton.jit
def _column_sums(values, sums, rows, stride, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    total = tl.zeros([BLOCK], tl.float32)
    for index in range(0, tl.minimum(ROWS, rows - tl.program_id(1) * ROWS)):
        row = tl.program_id(1).to(tl.int64) * ROWS + index
        total += tl.load(values + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(sums + tl.program_id(1).to(tl.int64) * WIDTH + column, total, mask=inside)


def column_sums(values: Tensor) -> Tensor:
    """The sum over all tokens [D] float32, of values [B, M, D] that may be part of a packed tensor."""
    rows, width, each = values.shape[0] * values.shape[1], values.shape[2], 128
    block = min(512, triton.next_power_of_2(width))
    sums = torch.empty(triton.cdiv(rows, each), width, device=values.device)
    grid = (triton.cdiv(width, block), len(sums))
    _column_sums[grid](values, sums, rows, values.stride(1), WIDTH=width, BLOCK=block, ROWS=each, num_warps=4)
    return sums.sum(0)


def pointers(*values: Tensor | None, other: Tensor) -> list[Tensor]:
    """Arguments for a kernel, with `other` in the place of those that are None and not read."""
    return [other if value is None else value for value in values]


def _stride(part: Tensor | None) -> int:
    """From one sample's modulation to the next one's."""
    return 0 if part is None or part.shape[0] == 1 else part.stride(0)
