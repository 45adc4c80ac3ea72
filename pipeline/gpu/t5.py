"""A T5 encoder over texts packed below each other: no product sees padding, in half precision or in 8 bits.

Beside its products, `transformers` spends a third of a T5-XXL's time on norms, GELUs and softmaxes of several kernels
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import T5EncoderModel

from pipeline.fusion_diff.conditions import send
from pipeline.gpu.kernels import t5 as kernels
from pipeline.gpu.kernels.t5 import Operand

ROWS_MULTIPLE = 128
"""Rows of a batch are filled up to a multiple of it: few sizes, for whoever allocates."""


class Weight(NamedTuple):
    """The weight of a product."""

    values: Tensor
    """[E, D]"""
    scale: Tensor | None
    """[1, E] float32: what each 8-bit row is multiplied by."""

    @classmethod
    @torch.no_grad()  # else what it is made of would stay in memory, for gradients that nobody asks for
    def of(cls, parts: Sequence[Tensor], fp8: bool) -> Weight:
        """One weight of several below each other."""
        joined = torch.cat(list(parts))
        if not fp8:
            return cls(joined, None)
        scale = joined.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / kernels.LARGEST  # [E, 1]
        return cls((joined / scale).to(kernels.FP8), scale.t().contiguous())

    def product(self, operand: Operand, dtype: torch.dtype) -> Tensor:
        """[S, D] to [S, E]."""
        if self.scale is None:
            return F.linear(operand.rows, self.values)
        assert operand.scale is not None
        return torch._scaled_mm(
            operand.rows, self.values.t(), operand.scale, self.scale, out_dtype=dtype, use_fast_accum=True
        )


class PackedT5:
    """The states of packed texts, as `transformers.T5EncoderModel` computes them one by one.

    Args:
        model: An encoder that `pipeline.gpu.texts.can_pack`. Its blocks are taken apart: it can be used no more.
        longest: The most tokens of a text.
        fp8: Whether products are of 8-bit numbers.
        at_once: The most tokens that go through a layer together; a single text may have more.

    Raises:
        ValueError: `fp8` with sizes that are no multiples of 16.
    """

    def __init__(self, model: T5EncoderModel, longest: int, fp8: bool, at_once: int):
        stack: Any = model.encoder
        self.at_once = at_once
        self.eps, self.fp8, self.embedding = model.config.layer_norm_epsilon, fp8, stack.embed_tokens.weight
        widths = model.config.d_model, model.config.d_ff
        if fp8 and any(width % 16 for width in widths):
            raise ValueError(
                f"text_encoder.dtype fp8: layers of {widths[0]} and {widths[1]} numbers, not multiples of 16"
            )
        self.table = _bias_table(stack.block[0].layer[0].SelfAttention, longest)
        self.norm = stack.final_layer_norm.weight
        self.layers = []
        for number, block in enumerate(stack.block):
            attention, inner = block.layer[0].SelfAttention, block.layer[1].DenseReluDense
            parts = ("q", "k", "v")
            self.layers.append(
                (
                    block.layer[0].layer_norm.weight,
                    Weight.of([getattr(attention, name).weight for name in parts], fp8),
                    Weight.of([attention.o.weight], fp8),
                    block.layer[1].layer_norm.weight,
                    Weight.of([inner.wi_0.weight, inner.wi_1.weight], fp8),
                    Weight.of([inner.wo.weight], fp8),
                )
            )
            stack.block[number] = nn.Identity()  # its weights' memory is free for the next layer's

    @torch.no_grad()
    def __call__(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """The states of all texts below each other [S, D]."""
        parts = [self._states(part) for part in in_turn(tokens, self.at_once)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _states(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """As a call, for texts that go through the layers together."""
        device, dtype = self.embedding.device, self.embedding.dtype
        lengths = torch.tensor([len(one) for one in tokens], dtype=torch.int32)
        count, longest = int(lengths.sum()), int(lengths.max())
        ids = torch.zeros(-(-count // ROWS_MULTIPLE) * ROWS_MULTIPLE, dtype=torch.int64)
        ids[:count] = torch.tensor([number for one in tokens for number in one])
        starts = (lengths.cumsum(0) - lengths).to(torch.int32)
        ids, starts, lengths = (send(part, device) for part in (ids, starts, lengths))
        stream: Tensor = F.embedding(ids, self.embedding)
        branch: Tensor | None = None
        for before_attention, projection, attended, before_inner, inner, outer in self.layers:
            operand = kernels.rms_norm(stream, branch, before_attention, self.eps, self.fp8)
            seen = kernels.attend(projection.product(operand, dtype), self.table, starts, lengths, longest)
            operand = kernels.rms_norm(seen, None, None, self.eps, True) if self.fp8 else Operand(seen, None)
            branch = attended.product(operand, dtype)
            operand = kernels.rms_norm(stream, branch, before_inner, self.eps, self.fp8)
            branch = outer.product(kernels.gate(inner.product(operand, dtype), self.fp8), dtype)
        return kernels.rms_norm(stream, branch, self.norm, self.eps, False).rows[:count]


def in_turn(tokens: Sequence[Sequence[int]], at_once: int) -> list[Sequence[Sequence[int]]]:
    """Cut texts into runs of at most so many tokens. A layer's inner numbers take five times its states' memory."""
    starts, held = [0], 0
    for row, one in enumerate(tokens):
        if held and held + len(one) > at_once:
            starts, held = [*starts, row], 0
        held += len(one)
    return [tokens[begin:end] for begin, end in pairwise([*starts, len(tokens)])]


def _bias_table(attention: Any, longest: int) -> Tensor:
    """See `kernels.attend`: [H, 2 R - 1] float32 with R = longest."""
    distance = torch.arange(1 - longest, longest, device=attention.relative_attention_bias.weight.device)
    bucket = attention._relative_position_bucket(
        distance,
        bidirectional=True,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    return attention.relative_attention_bias(bucket).detach().t().float().contiguous()
