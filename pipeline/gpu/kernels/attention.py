"""Triton attention over packed projections: every sample has its own stretch of keys, as long as its text is.

Heads of 72 numbers are computed as 64 + 16, where libraries pad them to 96 or 128. A sample's keys fill few tiles, so
that one program makes every gradient of a head in one pass, without atomic additions: the same bits each time.
Logits and softmax are float32.
"""

# mypy: disallow-untyped-defs=False
# (a Triton kernel's arguments have no Python types)

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.gpu.kernels.norm import FP8, FP8_SCALE, pointers

# Tiles of BM queries and BN keys, the quickest of a dozen on an H100 for 256 queries in heads of 72 numbers.
FORWARD = {"BM": 64, "BN": 64, "num_warps": 4, "num_stages": 3}
BACKWARD = {"BM": 64, "BN": 128, "num_warps": 8, "num_stages": 2}
LOG2E = 1.4426950408889634


class Stretches(NamedTuple):
    """Which of the packed keys each of B samples sees."""

    start: Tensor
    """[B] int32: the first row."""
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    """[B] int32: how many rows, at least 1."""
    own: Tensor
    """[B] int32: where the gradients of its keys begin, no two samples' in the same rows."""
    longest: int
    """An upper bound of `count`."""


class Attended(NamedTuple):
    """What `attend` returns."""

    out: Tensor
    """[B, M, D]"""
    lse: Tensor
    """The logarithms, base 2, of the softmax's denominators [B, H, M] float32."""


@triton.jit
def _load(base, rows, columns, stride, last, inside):
    """Rows and columns of a matrix, zeros beyond the last row and where a column is not `inside`."""
    return tl.load(
        base + rows[:, None] * stride + columns[None, :], mask=(rows[:, None] < last) & inside[None, :], other=0.0
    )


@triton.jit
def _store(target, columns, values, here, inside):
    """Columns of the rows that `target` points at, where a row is `here` and a column `inside`."""
    tl.store(target + columns[None, :], values.to(target.dtype.element_ty), mask=here[:, None] & inside[None, :])


@triton.jit
def _attend(
    query, keys, values, start, count, out, lse, queries, heads, query_row, query_token, key_token, scale,
    C: tl.constexpr, A: tl.constexpr, B: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, TEXT: tl.constexpr,
    PRECISION: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    sample, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    width = heads * C
    begin, length = sample.to(tl.int64) * queries * key_token + head * C, queries
    if TEXT:
        begin, length = tl.load(start + sample).to(tl.int64) * key_token + head * C, tl.load(count + sample)
    first, second = tl.arange(0, A), A + tl.arange(0, B)
    in_first, in_second = first < C, second < C
    place = tl.program_id(0) * BM + tl.arange(0, BM)
    mine = query + sample.to(tl.int64) * query_row + head * C
    query_a = _load(mine, place, first, query_token, queries, in_first)
    query_b = _load(mine, place, second, query_token, queries, in_second)
    most = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    sum_a = tl.zeros([BM, A], tl.float32)
    sum_b = tl.zeros([BM, B], tl.float32)
    for offset in range(0, length, BN):
        key = offset + tl.arange(0, BN)
        key_a = _load(keys + begin, key, first, key_token, length, in_first)
        key_b = _load(keys + begin, key, second, key_token, length, in_second)
        logits = tl.dot(query_a, tl.trans(key_a), input_precision=PRECISION)
        logits = tl.dot(query_b, tl.trans(key_b), logits, input_precision=PRECISION) * scale  # in powers of two
        logits = tl.where((key < length)[None, :], logits, float("-inf"))
        now = tl.maximum(most, tl.max(logits, 1))
        weights = tl.exp2(logits - now[:, None])
        decay = tl.exp2(most - now)
        total = total * decay + tl.sum(weights, 1)
        value_a = _load(values + begin, key, first, key_token, length, in_first)
        value_b = _load(values + begin, key, second, key_token, length, in_second)
        weights = weights.to(value_a.dtype)
        sum_a = tl.dot(weights, value_a, sum_a * decay[:, None], input_precision=PRECISION)
        sum_b = tl.dot(weights, value_b, sum_b * decay[:, None], input_precision=PRECISION)
        most = now
    written = out + (sample.to(tl.int64) * queries + place[:, None]) * width + head * C
    share = SCALE / total
    _store(written, first, sum_a * share[:, None], place < queries, in_first)
    _store(written, second, sum_b * share[:, None], place < queries, in_second)
    tl.store(lse + tl.program_id(1).to(tl.int64) * queries + place, most + tl.log2(total), mask=place < queries)


@triton.jit
def _delta(
    out, grad, delta, queries, heads, C: tl.constexpr, HEADS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The sum of out * grad over each head's numbers, for one query."""
    head, column = tl.arange(0, HEADS), tl.arange(0, COLUMNS)
    place = head[:, None] * C + column[None, :]
    inside = (head[:, None] < heads) & (column[None, :] < C)
    row = tl.program_id(0).to(tl.int64) * heads * C
    made = tl.load(out + row + place, mask=inside, other=0.0).to(tl.float32)
    given = tl.load(grad + row + place, mask=inside, other=0.0).to(tl.float32)
    sample, query = tl.program_id(0) // queries, tl.program_id(0) % queries
    tl.store(delta + (sample.to(tl.int64) * heads + head) * queries + query, tl.sum(made * given, 1), mask=head < heads)


@triton.jit
def _weights_and_change(
    key_a, key_b, value_a, value_b, query_a, query_b, given_a, given_b, norm, inner, seen, log_scale,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The softmax's weights of a tile, and the gradient of its logits: each [BN, BM]."""
    logits = tl.dot(key_a, tl.trans(query_a), input_precision=PRECISION)
    logits = tl.dot(key_b, tl.trans(query_b), logits, input_precision=PRECISION) * log_scale
    weights = tl.where(seen[:, None], tl.exp2(logits - norm[None, :]), 0.0)
    change = tl.dot(value_a, tl.trans(given_a), input_precision=PRECISION)
    change = tl.dot(value_b, tl.trans(given_b), change, input_precision=PRECISION)
    return weights.to(given_a.dtype), (weights * (change - inner[None, :])).to(query_a.dtype)


@triton.jit
def _add_query_gradient(
    part_a, part_b, target, aside, first, second, here, in_first, in_second, is_first, is_last, SINGLE: tl.constexpr,
):  # fmt: skip
    """A tile's share of the queries' gradients: summed aside from tile to tile, written with the last one."""
    if not SINGLE:
        if is_first == 0:
            part_a += tl.load(aside + first[None, :], mask=here[:, None] & in_first[None, :], other=0.0)
            part_b += tl.load(aside + second[None, :], mask=here[:, None] & in_second[None, :], other=0.0)
        if is_last == 0:
            _store(aside, first, part_a, here, in_first)
            _store(aside, second, part_b, here, in_second)
    if is_last:
        _store(target, first, part_a, here, in_first)
        _store(target, second, part_b, here, in_second)


@triton.jit
def _attend_backward(
    query, keys, values, start, count, own, grad, lse, delta, grad_query, grad_keys, grad_values, scratch, queries,
    heads, query_row, query_token, key_token, grad_row, grad_token, grad_key_token, scale, log_scale,
    C: tl.constexpr, A: tl.constexpr, B: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, TEXT: tl.constexpr,
    SINGLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    sample, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    width = heads * C
    begin, length = sample.to(tl.int64) * queries * key_token + head * C, queries
    if TEXT:
        begin, length = tl.load(start + sample).to(tl.int64) * key_token + head * C, tl.load(count + sample)
    first, second = tl.arange(0, A), A + tl.arange(0, B)
    in_first, in_second = first < C, second < C
    mine = query + sample.to(tl.int64) * query_row + head * C
    given = grad + sample.to(tl.int64) * queries * width + head * C
    back = grad_query + sample.to(tl.int64) * grad_row + head * C
    norms = tl.program_id(0).to(tl.int64) * queries
    written = begin
    if TEXT:
        written = tl.load(own + sample).to(tl.int64) * grad_key_token + head * C
    for offset in range(0, length, BN):
        key = offset + tl.arange(0, BN)
        key_a = _load(keys + begin, key, first, key_token, length, in_first)
        key_b = _load(keys + begin, key, second, key_token, length, in_second)
        value_a = _load(values + begin, key, first, key_token, length, in_first)
        value_b = _load(values + begin, key, second, key_token, length, in_second)
        grad_key_a = tl.zeros([BN, A], tl.float32)
        grad_key_b = tl.zeros([BN, B], tl.float32)
        grad_value_a = tl.zeros([BN, A], tl.float32)
        grad_value_b = tl.zeros([BN, B], tl.float32)
        for top in range(0, queries, BM):
            place = top + tl.arange(0, BM)
            here = place < queries
            query_a = _load(mine, place, first, query_token, queries, in_first)
            query_b = _load(mine, place, second, query_token, queries, in_second)
            given_a = _load(given, place, first, width, queries, in_first)
            given_b = _load(given, place, second, width, queries, in_second)
            norm = tl.load(lse + norms + place, mask=here, other=float("inf"))  # a query beyond the last has no weights
            inner = tl.load(delta + norms + place, mask=here, other=0.0)
            weights, change = _weights_and_change(
                key_a, key_b, value_a, value_b, query_a, query_b, given_a, given_b, norm, inner, key < length,
                log_scale, PRECISION,
            )  # fmt: skip
            grad_value_a = tl.dot(weights, given_a, grad_value_a, input_precision=PRECISION)
            grad_value_b = tl.dot(weights, given_b, grad_value_b, input_precision=PRECISION)
            grad_key_a = tl.dot(change, query_a, grad_key_a, input_precision=PRECISION)
            grad_key_b = tl.dot(change, query_b, grad_key_b, input_precision=PRECISION)
            part_a = tl.dot(tl.trans(change), key_a, input_precision=PRECISION) * scale
            part_b = tl.dot(tl.trans(change), key_b, input_precision=PRECISION) * scale
            _add_query_gradient(
                part_a, part_b, back + place[:, None] * grad_token, scratch + (norms + place[:, None]) * C,
                first, second, here, in_first, in_second, offset == 0, offset + BN >= length, SINGLE,
            )  # fmt: skip
        target = written + key[:, None] * grad_key_token
        _store(grad_keys + target, first, grad_key_a * scale, key < length, in_first)
        _store(grad_keys + target, second, grad_key_b * scale, key < length, in_second)
        _store(grad_values + target, first, grad_value_a, key < length, in_first)
        _store(grad_values + target, second, grad_value_b, key < length, in_second)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, heads: int, stretches: Stretches | None = None, fp8: bool = False
) -> Attended:
    """Attention, each sample over its own stretch of the keys.

    Args:
        query: [B, M, D].
        keys: [S, D]; may be part of a packed tensor, as may the others.
        values: [S, D], strided like the keys.
        heads: H.
        stretches: The rows that each sample sees. None: M rows each, one sample's after the other's.
        fp8: The output times FP8_SCALE, in 8 bits.

    Returns:
        The output and the softmax's denominators.
    """
    samples, queries, width = query.shape
    out = torch.empty(samples, queries, width, dtype=FP8 if fp8 else query.dtype, device=query.device)
    lse = torch.empty(samples, heads, queries, device=query.device)
    start, count = stretches[:2] if stretches else (None, None)
    _attend[(triton.cdiv(queries, FORWARD["BM"]), samples * heads)](
        query,
        keys,
        values,
        *pointers(start, count, other=lse),
        out,
        lse,
        queries,
        heads,
        query.stride(0),
        query.stride(1),
        keys.stride(0),
        LOG2E * (width // heads) ** -0.5,
        **_tiles(query, heads),
        TEXT=stretches is not None,
        SCALE=FP8_SCALE if fp8 else 1.0,
        **FORWARD,
    )
    return Attended(out, lse)


def attend_backward(
    inputs: tuple[Tensor, Tensor, Tensor],
    heads: int,
    attended: Attended,
    grad: Tensor,
    into: tuple[Tensor, Tensor, Tensor],
    stretches: Stretches | None = None,
) -> None:
    """Write the gradients of `attend`.

    Args:
        inputs: Query, keys and values as `attend` got them.
        heads: H.
        attended: What it returned.
        grad: The gradient of its output [B, M, D].
        into: Where the gradients of query, keys and values go. Rows of keys and values that no sample's gradient
            takes are left as they are.
        stretches: As `attend` got them.
    """
    query, keys, values = inputs
    out, lse = attended
    samples, queries, width = query.shape
    size = width // heads
    single = (stretches.longest if stretches else queries) <= BACKWARD["BN"]
    delta = torch.empty_like(lse)
    columns = {"C": size, "HEADS": triton.next_power_of_2(heads), "COLUMNS": triton.next_power_of_2(size)}
    _delta[(samples * queries,)](out, grad, delta, queries, heads, **columns)
    scratch = delta if single else torch.empty(samples, heads, queries, size, device=query.device)
    start, count, own = stretches[:3] if stretches else (None, None, None)
    _attend_backward[(samples * heads,)](
        query,
        keys,
        values,
        *pointers(start, count, own, other=lse),
        grad,
        lse,
        delta,
        *into,
        scratch,
        queries,
        heads,
        query.stride(0),
        query.stride(1),
        keys.stride(0),
        into[0].stride(0),
        into[0].stride(1),
        into[1].stride(0),
        size**-0.5,
        LOG2E * size**-0.5,
        **_tiles(query, heads),
        TEXT=stretches is not None,
        SINGLE=single,
        **BACKWARD,
    )


def _tiles(query: Tensor, heads: int) -> dict[str, int | str]:
    """A head's numbers as a power of two and the rest, neither below the 16 that a tensor core takes."""
    size = query.shape[-1] // heads
    main = max(16, 1 << (size.bit_length() - 1))
    rest = max(16, triton.next_power_of_2(max(1, size - main)))
    return {"C": size, "A": main, "B": rest, "PRECISION": "ieee" if query.dtype == torch.float32 else "tf32"}
