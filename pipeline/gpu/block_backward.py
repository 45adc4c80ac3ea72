"""The backward pass of a fused block, written out.

What one kernel makes of another's gradient is passed on without detours: the sums that biases need are made on the
way, and the gradient of the residual stream is added up by the kernels that read it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.gpu.block_forward import Activations, Biases, BlockInputs, split_qkv
from pipeline.gpu.kernels import attention, norm
from pipeline.gpu.kernels.norm import GatedBranch, NormGrads
from pipeline.gpu.packing import PackedText
from pipeline.gpu.products import HalfPrecision


class Saved(NamedTuple):
    """What a block's forward pass left."""

    products: HalfPrecision
    inputs: BlockInputs
    biases: Biases
    activations: Activations
    text: PackedText
    """Without its states."""


class SublayerGrads(NamedTuple):
    """Gradients that a sub-layer hands on, and those of its parameters."""

    tokens: Tensor
    """[B, M, D]: of the modulated tokens that the sub-layer reads."""
    weights: tuple[Tensor | None, ...]
    sums: tuple[Tensor, ...]
    """What biases need, [E] float32 each."""
    pairs: Tensor | None = None
    """[S, 2D]: of keys and values of the texts, for the cross-attention."""


class BlockGrads(NamedTuple):
    """Gradients of a block."""

    norms: tuple[NormGrads, NormGrads, NormGrads]
    """Those at the beginning of each sub-layer."""
    pairs: Tensor
    """[S, 2D]"""
    own: SublayerGrads
    cross: SublayerGrads
    feed: SublayerGrads


def backward_pass(saved: Saved, grad: Tensor, grad_outer: Tensor) -> BlockGrads:
    """Gradients of `forward_pass`.

    Args:
        saved: What it left.
        grad: The gradient of the residual stream [B, M, D].
        grad_outer: The gradient of the feed-forward layer's output [B, M, D].

    Returns:
        The gradients of inputs and parameters.
    """
    products, inputs, biases, made, _ = saved
    _, scale1, gate1, _, scale2, gate2, _, scale3, _ = inputs.modulation.split(1, dim=1)
    products.begin_backward(grad)
    factor = products.gradient_factor
    feed = _feed_forward(saved, grad_outer)
    branch = GatedBranch(made.cross, biases.cross_out, gate2)
    at_third = norm.gate_norm_backward(grad, feed.tokens, made.norm3, scale3, branch, factor)
    cross = _cross_attention(saved, at_third)
    branch = GatedBranch(made.own, biases.own_out, gate1)
    at_second = norm.gate_norm_backward(at_third.stream, cross.tokens, made.norm2, scale2, branch, factor)
    own = _self_attention(saved, at_second)
    at_first = norm.gate_norm_backward(at_second.stream, own.tokens, made.norm1, scale1, inputs.branch)
    assert cross.pairs is not None
    return BlockGrads((at_first, at_second, at_third), cross.pairs, own, cross, feed)


def _weight_gradient(saved: Saved, grad: Any, number: int) -> Tensor | None:
    """Of the weight whose operand is the `number`th one saved; None where weights are frozen."""
    products = saved.products
    if not products.purpose.trained:
        return None
    return products.weight_gradient(grad, saved.activations.saved[number])


def _feed_forward(saved: Saved, grad: Tensor) -> SublayerGrads:
    """Weights: inner, outer. Sums: of the inner layer."""
    products, made = saved.products, saved.activations
    operand, _ = products.gradient_operand(grad)
    outer = _weight_gradient(saved, operand, 5)
    assert made.inner is not None
    back = products.input_gradient("outer", operand)
    operand, inner_sum = products.gelu_backward(made.inner, saved.biases.inner, back)
    inner = _weight_gradient(saved, operand, 4)
    return SublayerGrads(products.input_gradient("inner", operand), (inner, outer), (inner_sum,))


def _cross_attention(saved: Saved, after: NormGrads) -> SublayerGrads:
    """Weights: query, out. Sums: of the queries, of the values."""
    products = saved.products
    assert after.branch is not None
    operand, _ = products.gradient_operand(after.branch)
    out, back = _weight_gradient(saved, operand, 3), products.input_gradient("cross_out", operand)
    grad_query, pairs = _attend_text_backward(saved, back)
    value_sum = norm.column_sums(back)  # a query's weights sum to one
    operand, query_sum = products.gradient_operand(grad_query, sums=True)
    assert query_sum is not None
    query = _weight_gradient(saved, operand, 2)
    tokens = products.input_gradient("query", operand)
    return SublayerGrads(tokens, (query, out), (query_sum, value_sum), pairs)


def _self_attention(saved: Saved, after: NormGrads) -> SublayerGrads:
    """Weights: queries, keys and values as one, out. Sums: of queries, keys and values as one."""
    products, made = saved.products, saved.activations
    assert after.branch is not None
    operand, _ = products.gradient_operand(after.branch)
    out, back = _weight_gradient(saved, operand, 1), products.input_gradient("own_out", operand)
    grad = torch.empty_like(made.qkv)
    attention.attend_backward(split_qkv(made.qkv), saved.inputs.heads, made.attended, back, split_qkv(grad))
    operand, qkv_sum = products.gradient_operand(grad, sums=True)
    assert qkv_sum is not None
    qkv = _weight_gradient(saved, operand, 0)
    return SublayerGrads(products.input_gradient("qkv", operand), (qkv, out), (qkv_sum,))


def _attend_text_backward(saved: Saved, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the queries [B, M, D] and of keys and values [S, 2D]."""
    inputs, made, text = saved.inputs, saved.activations, saved.text
    size, copies = len(inputs.pairs), text.copies * text.nulls
    into = inputs.pairs.new_zeros(size + copies, inputs.pairs.shape[1])
    back = torch.empty_like(made.query)
    keys, values = inputs.pairs.chunk(2, dim=-1)
    grad_keys, grad_values = into.chunk(2, dim=-1)
    attention.attend_backward(
        (made.query, keys, values),
        inputs.heads,
        made.text_attended,
        grad,
        (back, grad_keys, grad_values),
        inputs.stretches,
    )
    if copies:
        shared = into[size:].unflatten(0, (text.copies, text.nulls)).sum(0, dtype=torch.float32)
        into[size - text.nulls : size] = shared
    return back, into[:size]


def modulation_gradient(grads: BlockGrads, dtype: torch.dtype) -> Tensor:
    """[B, 9, D]. That of the last gate comes from the kernel that reads the stream next."""
    first, second, third = grads.norms
    parts = first.shift, first.scale, second.gate, second.shift, second.scale, third.gate, third.shift, third.scale
    found = [part for part in parts if part is not None]
    return torch.stack([*found, torch.zeros_like(found[0])], dim=1).to(dtype)


def parameter_gradients(grads: BlockGrads, qkv_layers: int, pair_layers: int) -> list[Tensor | None]:
    """Those of a block's parameters, in the order of `blocks._Block.forward`.

    Args:
        grads: Of the whole block.
        qkv_layers: How many tensors hold the weights of queries, keys and values: three, or one stacked.
        pair_layers: The same of the cross-attention's keys and values.

    Returns:
        The gradients of all weights and biases but the outer layer's bias.
    """
    _, second, third = grads.norms
    (qkv, own_out), (qkv_sum,) = grads.own.weights, grads.own.sums
    (query, cross_out), (query_sum, value_sum) = grads.cross.weights, grads.cross.sums
    (inner, outer), (inner_sum,) = grads.feed.weights, grads.feed.sums
    assert qkv is not None and second.total is not None and third.total is not None
    query_part, key_part, value_part = qkv_sum.chunk(3)
    nothing = torch.zeros_like(key_part)  # a bias of the keys moves all logits of a query alike
    return [
        own_out,
        second.total.sum(0),
        query,
        query_sum,
        cross_out,
        third.total.sum(0),
        inner,
        inner_sum,
        outer,
        *qkv.chunk(qkv_layers),
        *torch.cat([query_part, nothing, value_part]).chunk(qkv_layers),
        *torch.cat([nothing, value_sum]).chunk(pair_layers),
    ]
