"""Triton kernels that turn what a product reads into numbers of 8 bits, as rows and as columns.

A tensor core multiplies numbers of 8 bits only where both factors lie along what is summed over. A product and its two
gradients sum over different things, so each factor is kept twice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows and columns of a tile, the quickest of six on an H100.
TILE = {"BR": 128, "BC": 64, "num_warps": 4}


class Small(NamedTuple):
    """A factor of products, in 8 bits."""

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
def _turn(rows, columns, count, width, BR: tl.constexpr, BC: tl.constexpr):
    row, column = tl.program_id(1) * BR + tl.arange(0, BR), tl.program_id(0) * BC + tl.arange(0, BC)
    small = tl.load(
        rows + row[:, None].to(tl.int64) * width + column[None, :],
        mask=(row[:, None] < count) & (column[None, :] < width),
    )
    own = column[:, None].to(tl.int64) * count + row[None, :]
    tl.store(columns + own, tl.trans(small), mask=(column[:, None] < width) & (row[None, :] < count))


def quantise(
    values: Tensor, factor: Tensor, dtype: torch.dtype, columns: bool, sums: bool = False
) -> tuple[Small, Tensor | None]:
    """values [T, D] times the one number in `factor`, and with `sums` their own ones over all rows [D]."""
    rows = torch.empty_like(values, dtype=dtype)
    grid = _grid(values)
    parts = torch.empty(grid[1], values.shape[1], device=values.device) if sums else values
    _quantise[grid](values, factor, rows, parts, *values.shape, SUMS=sums, **TILE)
    return turned(rows, columns), parts.sum(0) if sums else None


def turned(rows: Tensor, columns: bool = True) -> Small:
    """Numbers of 8 bits [T, D] with their columns, where asked for.

    They are read from memory again: Triton 3.6 mixes up numbers that it turns when they became 8 bits in registers.
    """
    if not columns:
        return Small(rows, None)
    made = Small(rows, torch.empty(rows.shape[1], rows.shape[0], dtype=rows.dtype, device=rows.device))
    _turn[_grid(rows)](*made, *rows.shape, **TILE)
    return made


def _grid(values: Tensor) -> tuple[int, int]:
    return triton.cdiv(values.shape[1], TILE["BC"]), triton.cdiv(values.shape[0], TILE["BR"])
