"""The forward pass of a fused block: library products, and Triton kernels between them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from pipeline.gpu.kernels import attention, norm
from pipeline.gpu.kernels.attention import Attended, Stretches
from pipeline.gpu.kernels.norm import GatedBranch
from pipeline.gpu.packing import PackedText
from pipeline.gpu.products import HalfPrecision


class Biases(NamedTuple):
    """The biases of a block's layers but for the last, whose bias is added by the kernel that reads the stream next."""

    qkv: Tensor
    own_out: Tensor
    query: Tensor
    cross_out: Tensor
    inner: Tensor


class BlockInputs(NamedTuple):
    """What comes into a block."""

    hidden: Tensor
    """[B, M, D]: the residual stream."""
    branch: GatedBranch | None
    """What the block before still adds to it."""
    added: Tensor | None
    """[C, M or 1, D]: a residual for the last C rows."""
    modulation: Tensor
    """[B or 1, 9, D]: shift, scale and gate of each sub-layer."""
    pairs: Tensor
    """[S, 2D]: keys and values of the packed texts."""
    stretches: Stretches
    """Which of them each sample sees."""
    heads: int
    """H."""


class Activations(NamedTuple):
    """What the forward pass of a block leaves for the backward one."""

    norm1: norm.Normed
    qkv: Tensor
    """[B, M, 3D]: queries, keys and values beside each other."""
    attended: Attended
    own: Tensor
    """[B, M, D]: the output of the self-attention, without its bias."""
    norm2: norm.Normed
    query: Tensor
    """[B, M, D]: the queries to the texts."""
    text_attended: Attended
    cross: Tensor
    """[B, M, D]: the output of the cross-attention, without its bias."""
    norm3: norm.Normed
    inner: Tensor | None
    """[B, M, E]: before the activation, without its bias."""
    outer: Tensor
    """[B, M, D]: the output of the feed-forward layer, without its bias."""
    saved: tuple[Tensor | None, ...]
    """What the gradients of the weights need, in the order of qkv, own_out, query, cross_out, inner, outer."""


def forward_pass(products: HalfPrecision, biases: Biases, inputs: BlockInputs) -> Activations:
    """Eq. 13 to 15, from one residual stream to the next and what is still to be added to it.

    Args:
        products: The block's weights, and how they are multiplied.
        biases: Those of all layers but the last.
        inputs: Tokens, modulation and texts.

    Returns:
        All that was computed.
    """
    parts = inputs.modulation.split(1, dim=1)  # nine, each [B or 1, 1, D]
    shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, _ = parts
    fp8 = products.fp8
    attention_fp8 = fp8 and not products.purpose.gradients  # gradients need the outputs of the attentions whole
    norm1 = norm.gate_norm(inputs.hidden, inputs.branch, inputs.added, (shift1, scale1), fp8)
    operand1 = products.operand(norm1.tokens)
    qkv = products.linear("qkv", operand1, biases.qkv)
    attended = attention.attend(*split_qkv(qkv), inputs.heads, None, attention_fp8)
    operand2 = products.operand(attended.out)
    own = products.linear("own_out", operand2)
    branch = GatedBranch(own, biases.own_out, gate1)
    norm2 = norm.gate_norm(norm1.stream, branch, None, (shift2, scale2), fp8)
    operand3 = products.operand(norm2.tokens)
    query = products.linear("query", operand3, biases.query.to(own.dtype))
    keys, values = inputs.pairs.chunk(2, dim=-1)
    text_attended = attention.attend(query, keys, values, inputs.heads, inputs.stretches, attention_fp8)
    operand4 = products.operand(text_attended.out)
    cross = products.linear("cross_out", operand4)
    branch = GatedBranch(cross, biases.cross_out, gate2)
    norm3 = norm.gate_norm(norm2.stream, branch, None, (shift3, scale3), fp8)
    operand5 = products.operand(norm3.tokens)
    inner, operand6 = products.feed_forward(operand5, biases.inner)
    operands = operand1, operand2, operand3, operand4, operand5, operand6
    saved = tuple(products.saved(operand) for operand in operands)
    outer = products.linear("outer", operand6)
    return Activations(norm1, qkv, attended, own, norm2, query, text_attended, cross, norm3, inner, outer, saved)


def split_qkv(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B, M, 3D] -> queries [B, M, D], keys and values [B * M, D]."""
    query, key, value = packed.chunk(3, dim=-1)
    return query, key.flatten(0, 1), value.flatten(0, 1)


def stretches_of(text: PackedText) -> Stretches:
    """What the attention kernels take of packed texts."""
    return Stretches(text.start, text.count, text.own, text.longest)
