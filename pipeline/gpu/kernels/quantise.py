"""Triton kernels that turn the operands of a matrix product into 8-bit numbers, as rows and as columns.

A tensor core multiplies 8-bit numbers only where both operands are contiguous along what is summed over. A product and
its two gradients sum over different dimensions, so each operand is kept twice.
"""

# mypy: disallow-untyped-defs=False
# (a Triton kernel's arguments have no Python types)

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows and columns of a tile, the quickest of six on an H100.
TILE = {"BR": 128, "BC": 64, "num_warps": 4}


class Quantised(NamedTuple):
    """An operand of matrix products in 8 bits."""

    rows: Tensor
    """[T, D]"""
    columns: Tensor | None
    """[D, T], where it is needed."""


@triton.jit
def _quantise(values, factor, rows, sums, count, width, BR: tl.constexpr, BC: tl.constexpr, SUMS: tl.constexpr):
    row, column = tl.program_id(1) * BR + tl.arange(0, BR), tl.program_id(0) * BC + tl.arange(0, BC)
    inside = (row[:, None] < count) & (column[None, :] < width)
    own = row[:, None].to(tl.int64) * width + column[None, :]
    value = tl.load(values + own, mask=inside, other=0.0).to(tl.float32)
    if SUMS:
        tl.store(sums + tl.program_id(1).to(tl.int64) * width + column, tl.sum(value, 0), mask=column < width)
    tl.store(rows + own, (value * tl.load(factor)).to(rows.dtype.element_ty), mask=inside)


@triton.jit
def _transpose(rows, columns, count, width, BR: tl.constexpr, BC: tl.constexpr):
    row, column = tl.program_id(1) * BR + tl.arange(0, BR), tl.program_id(0) * BC + tl.arange(0, BC)
    values = tl.load(
        rows + row[:, None].to(tl.int64) * width + column[None, :],
        mask=(row[:, None] < count) & (column[None, :] < width),
    )
    own = column[:, None].to(tl.int64) * count + row[None, :]
    tl.store(columns + own, tl.trans(values), mask=(column[:, None] < width) & (row[None, :] < count))


def quantise(
    values: Tensor, factor: Tensor, dtype: torch.dtype, columns: bool, sums: bool = False
) -> tuple[Quantised, Tensor | None]:
    """Multiply by one factor and round to 8 bits.

    Args:
        values: [T, D].
        factor: A scalar tensor.
        dtype: An 8-bit type.
        columns: Whether the columns are needed too.
        sums: Whether to sum the values themselves.

    Returns:
        The 8-bit numbers, and with `sums` the sums of `values` over all rows [D] float32.
    """
    rows = torch.empty_like(values, dtype=dtype)
    grid = _grid(values)
    parts = torch.empty(grid[1], values.shape[1], device=values.device) if sums else values
    _quantise[grid](values, factor, rows, parts, *values.shape, SUMS=sums, **TILE)
    return with_columns(rows, columns), parts.sum(0) if sums else None


def with_columns(rows: Tensor, columns: bool = True) -> Quantised:
    """8-bit numbers [T, D] with their columns, where `columns` asks for them.

    The rows are read from memory again: Triton 3.6 transposes wrongly what became 8-bit numbers in registers.
    """
    if not columns:
        return Quantised(rows, None)
    transposed = torch.empty(rows.shape[1], rows.shape[0], dtype=rows.dtype, device=rows.device)
    _transpose[_grid(rows)](rows, transposed, *rows.shape, **TILE)
    return Quantised(rows, transposed)


def _grid(values: Tensor) -> tuple[int, int]:
    return triton.cdiv(values.shape[1], TILE["BC"]), triton.cdiv(values.shape[0], TILE["BR"])
