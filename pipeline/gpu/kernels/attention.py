"""Triton attention over packed projections: every sample has its own stretch of keys, as long as its text is.

Heads of 72 numbers are computed as 64 + 16, where libraries pad them to 96 or 128. A sample's keys fill few tiles, so that one
program makes every gradient of a head in one pass, without atomic additions: the same bits each time.
Logits and softmax are float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.gpu.kernels.norm import SMALL, SMALL_SCALE, pointers

# Tiles of BM queries and BN keys, the quickest of a dozen on an H100 for 256 queries in heads of 72 numbers.
FORWARD = {"BM": 64, "BN": 64, "num_warps": 4, "num_stages": 3}
BACKWARD = {"BM": 64, "BN": 128, "num_warps": 8, "num_stages": 2}
LOG2E = 1.4426950408889634


@triton.jit
def _load(base, rows, columns, stride, last, inside):
    return tl.load(
        base + rows[:, None] * stride + columns[None, :], mask=(rows[:, None] < last) & inside[None, :], other=0.0
    )


@triton.jit
def _attend(
    query,
    keys,
    values,
    start,
    count,
    out,
    lse,
    queries,
    heads,
    query_row,
    query_token,
    key_token,
    scale,
    C: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    TEXT: tl.constexpr,
    PRECISION: tl.constexpr,
    SCALE: tl.constexpr,
):
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
    here = place[:, None] < queries
    share = SCALE / total
    tl.store(written + first[None, :], (sum_a * share[:, None]).to(out.dtype.element_ty), mask=here & in_first[None, :])
    tl.store(
        written + second[None, :], (sum_b * share[:, None]).to(out.dtype.element_ty), mask=here & in_second[None, :]
    )
    tl.store(lse + tl.program_id(1).to(tl.int64) * queries + place, most + tl.log2(total), mask=place < queries)


@triton.jit
def _delta(out, grad, delta, queries, heads, C: tl.constexpr, HEADS: tl.constexpr, COLUMNS: tl.constexpr):
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
def _attend_backward(
    query,
    keys,
    values,
    start,
    count,
    own,
    grad,
    lse,
    delta,
    grad_query,
    grad_keys,
    grad_values,
    scratch,
    queries,
    heads,
    query_row,
    query_token,
    key_token,
    grad_row,
    grad_token,
    grad_key_token,
    scale,
    log_scale,
    C: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    TEXT: tl.constexpr,
    SINGLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
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
            logits = tl.dot(key_a, tl.trans(query_a), input_precision=PRECISION)
            logits = tl.dot(key_b, tl.trans(query_b), logits, input_precision=PRECISION) * log_scale
            weights = tl.where((key < length)[:, None], tl.exp2(logits - norm[None, :]), 0.0)  # [BN, BM]
            half = weights.to(given_a.dtype)
            grad_value_a = tl.dot(half, given_a, grad_value_a, input_precision=PRECISION)
            grad_value_b = tl.dot(half, given_b, grad_value_b, input_precision=PRECISION)
            change = tl.dot(value_a, tl.trans(given_a), input_precision=PRECISION)
            change = tl.dot(value_b, tl.trans(given_b), change, input_precision=PRECISION)
            change = (weights * (change - inner[None, :])).to(query_a.dtype)
            grad_key_a = tl.dot(change, query_a, grad_key_a, input_precision=PRECISION)
            grad_key_b = tl.dot(change, query_b, grad_key_b, input_precision=PRECISION)
            part_a = tl.dot(tl.trans(change), key_a, input_precision=PRECISION) * scale
            part_b = tl.dot(tl.trans(change), key_b, input_precision=PRECISION) * scale
            stored_a = here[:, None] & in_first[None, :]
            stored_b = here[:, None] & in_second[None, :]
            if not SINGLE:
                aside = scratch + (norms + place[:, None]) * C
                if offset > 0:
                    part_a += tl.load(aside + first[None, :], mask=stored_a, other=0.0)
                    part_b += tl.load(aside + second[None, :], mask=stored_b, other=0.0)
                if offset + BN < length:
                    tl.store(aside + first[None, :], part_a, mask=stored_a)
                    tl.store(aside + second[None, :], part_b, mask=stored_b)
            if offset + BN >= length:
                target = back + place[:, None] * grad_token
                tl.store(target + first[None, :], part_a.to(grad_query.dtype.element_ty), mask=stored_a)
                tl.store(target + second[None, :], part_b.to(grad_query.dtype.element_ty), mask=stored_b)
        kept_a = (key[:, None] < length) & in_first[None, :]
        kept_b = (key[:, None] < length) & in_second[None, :]
        target = written + key[:, None] * grad_key_token
        tl.store(grad_keys + target + first[None, :], (grad_key_a * scale).to(grad_keys.dtype.element_ty), mask=kept_a)
        tl.store(grad_keys + target + second[None, :], (grad_key_b * scale).to(grad_keys.dtype.element_ty), mask=kept_b)
        tl.store(grad_values + target + first[None, :], grad_value_a.to(grad_values.dtype.element_ty), mask=kept_a)
        tl.store(grad_values + target + second[None, :], grad_value_b.to(grad_values.dtype.element_ty), mask=kept_b)


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    start: Tensor | None,
    count: Tensor | None,
    heads: int,
    small: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attention of query [B, M, D] to keys and values [S, D], of which sample b sees `count[b]` >= 1 rows from `start[b]` on.

    start, count [B] int32; None: M rows each, one sample's after the other's. All may be parts of packed tensors; keys and values are
    strided alike. Returns [B, M, D] and the logarithms, base 2, of the softmax's denominators [B, H, M].
    small: the former times SMALL_SCALE, in 8 bits.
    """
    samples, queries, width = query.shape
    out = torch.empty(samples, queries, width, dtype=SMALL if small else query.dtype, device=query.device)
    lse = torch.empty(samples, heads, queries, device=query.device)
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
        TEXT=start is not None,
        SCALE=SMALL_SCALE if small else 1.0,
        **FORWARD,
    )
    return out, lse


def attend_backward(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    start: Tensor | None,
    count: Tensor | None,
    own: Tensor | None,
    heads: int,
    longest: int,
    out: Tensor,
    lse: Tensor,
    grad: Tensor,
    into: Sequence[Tensor],
) -> None:
    """Write the gradients of query, keys and values, from that of `attend`'s output, grad [B, M, D], to the three tensors `into`.

    longest: the most keys of a sample. own [B] int32: where its keys' gradients begin, no two samples' in the same rows; other rows
    are left as they are.
    """
    samples, queries, width = query.shape
    size, single = width // heads, longest <= BACKWARD["BN"]
    delta = torch.empty_like(lse)
    _delta[(samples * queries,)](
        out,
        grad,
        delta,
        queries,
        heads,
        C=size,
        HEADS=triton.next_power_of_2(heads),
        COLUMNS=triton.next_power_of_2(size),
    )
    scratch = delta if single else torch.empty(samples, heads, queries, size, device=query.device)
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
        TEXT=start is not None,
        SINGLE=single,
        **BACKWARD,
    )


def _tiles(query: Tensor, heads: int) -> dict[str, int | str]:
    """A head's numbers as a power of two and the rest, neither below the 16 that a tensor core takes."""
    size = query.shape[-1] // heads
    main = max(16, 1 << (size.bit_length() - 1))
    rest = max(16, triton.next_power_of_2(max(1, size - main)))
    return {"C": size, "A": main, "B": rest, "PRECISION": "ieee" if query.dtype == torch.float32 else "tf32"}
