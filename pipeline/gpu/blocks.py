"""A block of the prior from fused kernels: what a GPU trains and samples with in half precision.

The matrix products stay with the library that is quickest at them; everything between them is Triton
(`pipeline.gpu.kernels`). `BlockBody.forward` is the same arithmetic in plain operators, and the reference in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.fusion_diff.layers import Attention, BlockBody
from pipeline.gpu.block_backward import BlockGrads, Saved, backward_pass, modulation_gradient, parameter_gradients
from pipeline.gpu.block_forward import Biases, BlockInputs, forward_pass, stretches_of
from pipeline.gpu.kernels.norm import GatedBranch, Normed
from pipeline.gpu.packing import PackedText
from pipeline.gpu.pending import PendingSum
from pipeline.gpu.products import EightBit, GradientScale, HalfPrecision, Purpose, stacked, weight_gradient

QKV, PAIR = ("query", "key", "value"), ("key", "value")
"""Layers of an attention that read the same input, and so become one product."""
PRODUCTS = ("qkv", "own_out", "query", "cross_out", "inner", "outer")


class PreparedBlock(NamedTuple):
    """A block's weights as sampling multiplies them."""

    products: HalfPrecision
    biases: Biases


def layers(attention: Attention, names: Sequence[str]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of some of an attention's layers."""
    found = [getattr(attention, name) for name in names]
    return [layer.weight for layer in found], [layer.bias for layer in found]


def prepare_block(body: BlockBody, dtype: torch.dtype, fp8: bool = False) -> PreparedBlock:
    """A block's products for sampling, with the weights as they are now.

    Args:
        body: The block.
        dtype: Of the tokens.
        fp8: Multiply 8-bit numbers.

    Returns:
        The weights as `run_block` takes them.

    Raises:
        ValueError: A size that 8-bit products cannot have.
    """
    own, cross, feed = body.self_attention, body.cross_attention, body.feed_forward
    qkv, qkv_biases = layers(own, QKV)
    weights = own.out.weight, cross.query.weight, cross.out.weight, feed.inner.weight, feed.outer.weight
    named = _named(qkv, *weights, dtype=None if fp8 else dtype)
    products = EightBit(named, dtype) if fp8 else HalfPrecision(named)
    biases = stacked(qkv_biases, dtype), own.out.bias, cross.query.bias, cross.out.bias, feed.inner.bias
    return PreparedBlock(products, Biases(*biases))


def prepare_pair(attention: Attention, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights [2D, D] and biases [2D] of the keys and values, stacked."""
    weights, biases = layers(attention, PAIR)
    return stacked(weights, dtype), stacked(biases, dtype)


def keys_values(attention: Attention, text: PackedText, pair: tuple[Tensor, Tensor] | None = None) -> PackedText:
    """A block's keys and values of the texts. Their biases' gradients come with the attention's.

    Args:
        attention: The block's cross-attention.
        text: Packed texts at the width.
        pair: What `prepare_pair` made of it, where it is at hand.

    Returns:
        The texts with states [S, 2D].
    """
    if pair is not None and not torch.is_grad_enabled():
        return text._replace(states=F.linear(text.states, *pair))
    weights, biases = layers(attention, PAIR)
    return text._replace(states=_Product.apply(text.states, len(weights), *weights, *biases))


def run_block(
    body: BlockBody, hidden: Tensor | PendingSum, modulation: Tensor, text: PackedText, added: Tensor | None
) -> PendingSum:
    """`BlockBody.forward` from fused kernels.

    Args:
        body: The block; `prepared` and `gradient_scale` are read where a fused one has them.
        hidden: [B, M, D], or what the block before left.
        modulation: [B or 1, 9, D].
        text: This block's keys and values, packed.
        added: [C, M or 1, D], or None.

    Returns:
        The tokens [B, M, D], with the last sum pending.
    """
    stream, branch = (hidden.hidden, hidden.branch) if isinstance(hidden, PendingSum) else (hidden, None)
    own, cross, feed = body.self_attention, body.cross_attention, body.feed_forward
    last_gate = modulation[:, 8:9]
    inputs = BlockInputs(stream, branch, added, modulation, text.states, stretches_of(text), own.heads)
    if not torch.is_grad_enabled():
        prepared: PreparedBlock = getattr(body, "prepared", None) or prepare_block(body, stream.dtype)
        made = forward_pass(prepared.products, prepared.biases, inputs)
        return PendingSum(made.norm3.stream, GatedBranch(made.outer, feed.outer.bias, last_gate))
    scale = getattr(body, "gradient_scale", None)
    parameters = [
        parameter for layer in (own.out, cross.query, cross.out, feed.inner) for parameter in (layer.weight, layer.bias)
    ]
    qkv, qkv_biases = layers(own, QKV)
    stream, output = _Block.apply(
        stream,
        *(branch or (None, None, None)),
        added,
        modulation,
        text.states,
        (text, own.heads, scale),
        *parameters,
        feed.outer.weight,
        *qkv,
        *qkv_biases,
        *layers(cross, PAIR)[1],
    )
    return PendingSum(stream, GatedBranch(output, feed.outer.bias, last_gate), scale)


class _Block(torch.autograd.Function):
    """`forward_pass` with its gradients."""

    @staticmethod
    def forward(  # noqa: PLR0913  # autograd passes tensors one by one
        ctx: Any,
        hidden: Tensor,
        output: Tensor | None,
        bias: Tensor | None,
        gate: Tensor | None,
        added: Tensor | None,
        modulation: Tensor,
        pairs: Tensor,
        settings: tuple[PackedText, int, GradientScale | None],
        own_out: Tensor,
        own_bias: Tensor,
        query: Tensor,
        query_bias: Tensor,
        cross_out: Tensor,
        cross_bias: Tensor,
        inner: Tensor,
        inner_bias: Tensor,
        outer: Tensor,
        *stackable: Tensor,
    ) -> tuple[Tensor, Tensor]:
        text, heads, scale = settings
        qkv, qkv_biases, dtype = stackable[:3], stackable[3:6], hidden.dtype
        purpose = Purpose(outer.dtype == torch.float32, gradients=True, trained=ctx.needs_input_grad[8])
        weights, products = (own_out, query, cross_out, inner, outer), None
        if scale is None:
            products = HalfPrecision(_named(qkv, *weights, dtype=dtype), purpose)
        else:
            products = EightBit(_named(qkv, *weights), dtype, purpose, scale)
        biases = Biases(stacked(qkv_biases, dtype), own_bias, query_bias, cross_bias, inner_bias)
        branch = None if output is None or bias is None or gate is None else GatedBranch(output, bias, gate)
        inputs = BlockInputs(hidden, branch, added, modulation, pairs, stretches_of(text), heads)
        made = forward_pass(products, biases, inputs)
        stream, mean, rstd = made.norm3.stream, made.norm3.mean, made.norm3.rstd
        nothing = stream.new_empty(0)  # `saved` has what is needed of tokens; tensors of the graph are saved by it
        norm1, norm2 = (normed._replace(tokens=nothing) for normed in (made.norm1, made.norm2))
        norm3 = Normed(nothing, nothing, nothing, nothing)
        ctx.activations = made._replace(norm1=norm1, norm2=norm2, norm3=norm3, outer=nothing)
        ctx.products, ctx.text, ctx.heads, ctx.added = products, text._replace(states=nothing), heads, added
        ctx.save_for_backward(output, bias, gate, modulation, pairs, *biases, stream, mean, rstd)
        return stream, made.outer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_outer: Tensor) -> tuple[Tensor | None, ...]:
        output, bias, gate, modulation, pairs, *biases, stream, mean, rstd = ctx.saved_tensors
        branch = None if output is None else GatedBranch(output, bias, gate)
        inputs = BlockInputs(stream, branch, None, modulation, pairs, stretches_of(ctx.text), ctx.heads)
        activations = ctx.activations._replace(norm3=Normed(stream, stream, mean, rstd))
        saved = Saved(ctx.products, inputs, Biases(*biases), activations, ctx.text)
        ctx.activations = ctx.products = None  # as saved tensors are given up
        grads, needs = backward_pass(saved, grad, grad_outer), ctx.needs_input_grad
        parameters: list[Tensor | None] = [None] * (len(needs) - 8)
        if needs[8]:
            parameters = parameter_gradients(grads, len(QKV), len(PAIR))
        return (
            grads.norms[0].stream,
            *_branch_gradient(grads, branch, needs),
            _added_gradient(grads.norms[0].stream, ctx.added, needs[4]),
            modulation_gradient(grads, modulation.dtype) if needs[5] else None,
            grads.pairs,
            None,
            *parameters,
        )


class _Product(torch.autograd.Function):
    """Linear layers of one input [..., D] as one product, outputs beside each other; biases are not trained here."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, count: int, *parameters: Tensor) -> Tensor:
        weight, bias = (stacked(parameters[at : at + count], tokens.dtype) for at in (0, count))
        ctx.save_for_backward(tokens, weight)
        ctx.count, ctx.float32_weights = count, parameters[0].dtype == torch.float32
        return F.linear(tokens, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight = ctx.saved_tensors
        back = F.linear(grad, weight.t()) if ctx.needs_input_grad[0] else None
        weights: Sequence[Tensor | None] = [None] * ctx.count
        if ctx.needs_input_grad[2]:
            weights = weight_gradient(grad, tokens, ctx.float32_weights).chunk(ctx.count)
        return back, None, *weights, *[None] * ctx.count


def _branch_gradient(grads: BlockGrads, branch: GatedBranch | None, needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Of the output, bias and gate that came with the stream."""
    first = grads.norms[0]
    if branch is None or first.total is None or first.gate is None:
        return None, None, None
    bias = first.total.sum(0) if needs[2] else None
    return first.branch, bias, first.gate[:, None].to(branch.gate.dtype) if needs[3] else None


def _added_gradient(grad: Tensor, added: Tensor | None, needed: bool) -> Tensor | None:
    """Of what was added to the last samples, for each token or for all alike."""
    if added is None or not needed:
        return None
    own = grad[-len(added) :]
    return own.sum(1, keepdim=True) if added.shape[1] == 1 else own


def _named(qkv: Sequence[Tensor], *others: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The weights of a block's products by name, in `dtype` or as they are."""
    parts = (qkv, *([other] for other in others))
    return {name: stacked(part, dtype or part[0].dtype) for name, part in zip(PRODUCTS, parts, strict=True)}
