"""Triton kernels of a T5 encoder over texts packed below each other: what stands between its matrix products.

Each reads and writes a token once. Where the next product is of 8-bit numbers, a token gets a factor of its own: T5's
activations have outliers that one factor for all would sink the rest under.
"""

# mypy: disallow-untyped-defs=False
# (a Triton kernel's arguments have no Python types)

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
# Tiles of BM queries and BN keys.
TILES = {"BM": 64, "BN": 64, "num_warps": 4}


class Operand(NamedTuple):
    """What a matrix product reads."""

    rows: Tensor
    """[S, D] in the type of the tokens, or in 8 bits."""
    scale: Tensor | None
    """[S, 1] float32: what each 8-bit row is multiplied by; None where rows are not 8-bit."""


@triton.jit
def _write(out, scales, row, own, inside, value, FP8: tl.constexpr, LARGEST: tl.constexpr):
    """A row of an operand."""
    if FP8:
        scale = tl.maximum(tl.max(tl.abs(value), 0), 1e-12) / LARGEST
        tl.store(scales + row, scale)
        value = value / scale
    tl.store(out + own, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm(
    stream, branch, weight, out, scales, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr, BRANCH: tl.constexpr,
    NORM: tl.constexpr, FP8: tl.constexpr, LARGEST: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside, own = column < WIDTH, row.to(tl.int64) * WIDTH + column
    value = tl.load(stream + own, mask=inside, other=0.0).to(tl.float32)
    if BRANCH:
        value += tl.load(branch + own, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(stream.dtype.element_ty)
        tl.store(stream + own, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if NORM:
        value *= 1.0 / tl.sqrt(tl.sum(value * value, 0) / WIDTH + eps)
        value *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    _write(out, scales, row, own, inside, value, FP8, LARGEST)


@triton.jit
def _gate(
    inner, out, scales, WIDTH: tl.constexpr, BLOCK: tl.constexpr, FP8: tl.constexpr, LARGEST: tl.constexpr
):  # fmt: skip
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside, begin = column < WIDTH, row.to(tl.int64) * 2 * WIDTH
    value = tl.load(inner + begin + column, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(inner + begin + WIDTH + column, mask=inside, other=0.0).to(tl.float32)
    bent = 1.5957691216057308 * (value + 0.044715 * value * value * value)  # GELU with tanh, as a sigmoid
    value = value / (1.0 + tl.exp(-bent)) * factor
    _write(out, scales, row, row.to(tl.int64) * WIDTH + column, inside, value, FP8, LARGEST)


@triton.jit
def _attend(
    projected, table, out, starts, lengths, span, heads, C: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    text, head, first = tl.program_id(1) // heads, tl.program_id(1) % heads, tl.program_id(0) * BM
    start, length, width = tl.load(starts + text).to(tl.int64), tl.load(lengths + text), heads * C
    if first < length:
        channel, query = tl.arange(0, C), first + tl.arange(0, BM)
        base = projected + start * 3 * width + head * C + channel[None, :]
        here = (query < length)[:, None]
        queries = tl.load(base + query[:, None] * 3 * width, mask=here, other=0.0)
        most = tl.full([BM], float("-inf"), tl.float32)
        total = tl.zeros([BM], tl.float32)
        found = tl.zeros([BM, C], tl.float32)
        biases = table + head * (2 * span - 1) + span - 1
        for offset in range(0, length, BN):
            key = offset + tl.arange(0, BN)
            there = key < length
            keys = tl.load(base + width + key[:, None] * 3 * width, mask=there[:, None], other=0.0)
            both = here & there[None, :]
            logits = tl.dot(queries, tl.trans(keys), input_precision="ieee")  # T5 does not divide them by anything
            logits += tl.load(biases + key[None, :] - query[:, None], mask=both, other=0.0)
            logits = tl.where(there[None, :], logits, float("-inf"))
            now = tl.maximum(most, tl.max(logits, 1))
            weights, decay = tl.exp(logits - now[:, None]), tl.exp(most - now)
            total = total * decay + tl.sum(weights, 1)
            values = tl.load(base + 2 * width + key[:, None] * 3 * width, mask=there[:, None], other=0.0)
            found = tl.dot(weights.to(values.dtype), values, found * decay[:, None], input_precision="ieee")
            most = now
        found = found / total[:, None]
        written = out + (start + query[:, None]) * width + head * C + channel[None, :]
        tl.store(written, found.to(out.dtype.element_ty), mask=here)


def rms_norm(stream: Tensor, branch: Tensor | None, weight: Tensor | None, eps: float, fp8: bool) -> Operand:
    """Add a branch to the residual stream, in place, and normalise the sum by its root mean square.

    Args:
        stream: [S, D].
        branch: [S, D] or None.
        weight: [D]; None: no normalisation, only the type changes.
        eps: Of the root mean square.
        fp8: Whether the result is for an 8-bit product.

    Returns:
        The normalised tokens.
    """
    out = _operand(stream, stream.shape[1], fp8)
    width, given = stream.shape[1], stream if branch is None else branch
    _rms_norm[(len(stream),)](
        stream,
        given,
        stream if weight is None else weight,
        out.rows,
        given if out.scale is None else out.scale,
        eps,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        BRANCH=branch is not None,
        NORM=weight is not None,
        FP8=fp8,
        LARGEST=LARGEST,
        num_warps=8,
    )
    return out


def gate(inner: Tensor, fp8: bool) -> Operand:
    """GELU of the first half of the columns times the second half: [S, 2F] to [S, F]."""
    width = inner.shape[1] // 2
    out = _operand(inner, width, fp8)
    _gate[(len(inner),)](
        inner,
        out.rows,
        inner if out.scale is None else out.scale,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        FP8=fp8,
        LARGEST=LARGEST,
        num_warps=16,
    )
    return out


def attend(projected: Tensor, table: Tensor, starts: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """Attention of every text to itself, with T5's bias of relative positions.

    Args:
        projected: Queries, keys and values beside each other, [S, 3 H C].
        table: [H, 2 R - 1] float32: the bias of a key that stands r - (R - 1) tokens behind its query, R >= longest.
        starts: First row of each text [B] int32.
        lengths: Its rows [B] int32.
        longest: Of `lengths`.

    Returns:
        [S, H C], zero in rows of no text.
    """
    heads, width = len(table), projected.shape[1] // 3
    out = projected.new_zeros(len(projected), width)
    grid = (triton.cdiv(longest, TILES["BM"]), len(starts) * heads)
    _attend[grid](projected, table, out, starts, lengths, (table.shape[1] + 1) // 2, heads, C=width // heads, **TILES)
    return out


def _operand(like: Tensor, width: int, fp8: bool) -> Operand:
    rows = torch.empty(len(like), width, dtype=FP8 if fp8 else like.dtype, device=like.device)
    return Operand(rows, torch.empty(len(like), 1, device=like.device) if fp8 else None)
