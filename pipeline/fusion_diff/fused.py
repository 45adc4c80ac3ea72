"""A block of the prior from fused kernels: what a GPU trains and samples with in half precision.

The matrix products stay with the library that is quickest at them; everything between them is Triton
(`pipeline.fusion_diff.kernels`). Forward and backward of a block are written out, so that what one kernel makes of another's
gradient is passed on without detours: the sums that biases need are made on the way, and what a block adds to the residual
stream is added by the kernel that reads it next. `BlockBody.forward` is the same arithmetic in plain operators, and the
reference in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.fusion_diff.kernels import attention, norm
from pipeline.fusion_diff.texts import PackedText

if TYPE_CHECKING:
    from pipeline.fusion_diff.layers import BlockBody, CrossAttention


@dataclass(frozen=True)
class Stream:
    """hidden + gate * (branch + bias): the tokens after a block, not added up yet."""

    hidden: Tensor
    """[B, M, D]"""
    branch: Tensor
    """[B, M, D]: what the block's last layer made, without its bias."""
    bias: Tensor
    """[D]"""
    gate: Tensor
    """[B or 1, 1, D]"""

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, rows: slice) -> Stream:
        """Some rows of the batch."""
        return Stream(self.hidden[rows], self.branch[rows], self.bias, self.gate[rows] if len(self.gate) > 1 else self.gate)

    def parts(self) -> tuple[Tensor, ...]:
        return self.hidden, self.branch, self.bias, self.gate

    def summed(self) -> Tensor:
        """[B, M, D]"""
        return _GateNorm.apply(*self.parts(), None, None)

    def modulated(self, shift: Tensor, scale: Tensor) -> Tensor:
        """`layers.modulate` of the sum, [B, M, D]."""
        return _GateNorm.apply(*self.parts(), shift, scale)


def keys_values(layer: CrossAttention, text: PackedText) -> PackedText:
    """A block's keys and values of the texts. Their biases' gradients come with the attention's."""
    weights, biases = layer.projections()
    return text._replace(states=_Product.apply(text.states, len(weights), *weights, *biases))


def block(body: BlockBody, hidden: Tensor | Stream, modulation: Tensor, text: PackedText, added: Tensor | None) -> Stream:
    """`BlockBody.forward`: tokens [B, M, D] and modulation [B or 1, 9, D] in, tokens out."""
    before = hidden.parts() if isinstance(hidden, Stream) else (hidden, None, None, None)
    own, cross, feed = body.self_attention, body.cross_attention, body.feed_forward
    if not torch.is_grad_enabled():
        products = body.products or Products(body, before[0].dtype)
        return Stream(*_sample(body, products, before, modulation, text, added), feed.outer.bias, modulation[:, 8:9])
    (inward, inward_biases), (_, pair_biases) = own.projections(), cross.projections()
    stream, branch = _Block.apply(
        *before, added, modulation, text.states, text, (len(inward), len(pair_biases), own.heads), own.out.weight, own.out.bias,
        cross.query.weight, cross.query.bias, cross.out.weight, cross.out.bias, feed.inner.weight, feed.inner.bias, feed.outer.weight,
        *inward, *inward_biases, *pair_biases,
    )
    return Stream(stream, branch, feed.outer.bias, modulation[:, 8:9])


class Products:
    """A block's products when nothing is trained, with the weights as they are now."""

    small = False

    def __init__(self, body: BlockBody, dtype: torch.dtype):
        own, cross, feed = body.self_attention, body.cross_attention, body.feed_forward
        layers = {"own_out": own.out, "query": cross.query, "cross_out": cross.out, "inner": feed.inner, "outer": feed.outer}
        inward = (_stacked(part, dtype) for part in own.projections())
        self.layers = {"inward": tuple(inward)} | {name: (layer.weight.to(dtype), layer.bias.to(dtype)) for name, layer in layers.items()}

    def __call__(self, name: str, tokens: Tensor, biased: bool = False) -> Tensor:
        """tokens [B, M, D] -> [B, M, E]"""
        weight, bias = self.layers[name]
        return F.linear(tokens, weight, bias if biased else None)

    def active(self, tokens: Tensor) -> Tensor:
        """The feed-forward's inner layer with its activation, in one kernel of a GPU."""
        weight, bias = self.layers["inner"]
        if not tokens.is_cuda:  # there torch's fused form is the exact GELU
            return F.gelu(F.linear(tokens, weight, bias), approximate="tanh")
        return torch._addmm_activation(bias, tokens.flatten(0, 1), weight.t(), use_gelu=True).unflatten(0, tokens.shape[:2])


class SmallProducts(Products):
    """The same in 8 bits (e4m3): weights by their largest number, inputs by SMALL_SCALE. ValueError on sizes that no such product takes."""

    small = True

    def __init__(self, body: BlockBody, dtype: torch.dtype):
        super().__init__(body, dtype)
        for weight, _ in self.layers.values():
            if any(size % 16 for size in weight.shape):
                raise ValueError(f"fp8: a layer of {weight.shape[1]} to {weight.shape[0]} numbers; both must be multiples of 16")
        self.dtype, device = dtype, body.feed_forward.outer.weight.device
        self.inverse = torch.tensor(1.0 / norm.SMALL_SCALE, device=device)
        self.layers = {name: (*_small(weight), bias) for name, (weight, bias) in self.layers.items()}

    def __call__(self, name: str, tokens: Tensor, biased: bool = False) -> Tensor:
        weight, scale, bias = self.layers[name]
        given = {"bias": bias if biased else None, "out_dtype": self.dtype, "use_fast_accum": True}
        return torch._scaled_mm(tokens.flatten(0, 1), weight.t(), self.inverse, scale, **given).unflatten(0, tokens.shape[:2])

    def active(self, tokens: Tensor) -> Tensor:
        return norm.gelu(self("inner", tokens), self.layers["inner"][-1], small=True)


def _small(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [E, D] in 8 bits, and what to multiply it by."""
    scale = weight.abs().amax().float().clamp(min=1e-12) / torch.finfo(norm.SMALL).max
    return (weight / scale).to(norm.SMALL), scale


def _sample(
    body: BlockBody, products: Products, before: tuple[Tensor | None, ...], modulation: Tensor, text: PackedText, added: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `_Block`, without gradients."""
    shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, _ = modulation.split(1, dim=1)  # each [B or 1, 1, D]
    own, cross, small = body.self_attention, body.cross_attention, products.small
    first = norm.gate_norm(*before, added, shift1, scale1, small)
    attended, _ = attention.attend(*_thirds(products("inward", first.tokens, True)), None, None, own.heads, small)
    second = norm.gate_norm(first.stream, products("own_out", attended), own.out.bias, gate1, None, shift2, scale2, small)
    asked = products("query", second.tokens, True)
    seen, _ = attention.attend(asked, *text.states.chunk(2, dim=-1), text.start, text.count, cross.heads, small)
    third = norm.gate_norm(second.stream, products("cross_out", seen), cross.out.bias, gate2, None, shift3, scale3, small)
    return third.stream, products("outer", products.active(third.tokens))


class _Block(torch.autograd.Function):
    """Eq. 13 to 15, from one residual stream to the next and what is still to be added to it."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, branch: Tensor | None, bias: Tensor | None, gate: Tensor | None, added: Tensor | None,
        modulation: Tensor, pairs: Tensor, text: PackedText, sizes: tuple[int, int, int], own_out: Tensor, own_bias: Tensor, query: Tensor,
        query_bias: Tensor, cross_out: Tensor, cross_bias: Tensor, inner: Tensor, inner_bias: Tensor, outer: Tensor, *together: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count, _, heads = sizes
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, _ = modulation.split(1, dim=1)  # each [B or 1, 1, D]
        inward, inward_bias = (_stacked(together[at : at + count], hidden.dtype) for at in (0, count))
        own_out, query, cross_out, inner, outer = (_stacked([weight], hidden.dtype) for weight in (own_out, query, cross_out, inner, outer))

        first = norm.gate_norm(hidden, branch, bias, gate, added, shift1, scale1)
        packed = F.linear(first.tokens, inward, inward_bias)  # [B, M, 3D]
        attended, lse = attention.attend(*_thirds(packed), None, None, heads)
        made = F.linear(attended, own_out)
        second = norm.gate_norm(first.stream, made, own_bias, gate1, None, shift2, scale2)
        asked = F.linear(second.tokens, query, query_bias.to(query.dtype))
        seen, text_lse = attention.attend(asked, *pairs.chunk(2, dim=-1), text.start, text.count, heads)
        found = F.linear(seen, cross_out)
        third = norm.gate_norm(second.stream, found, cross_bias, gate2, None, shift3, scale3)
        between = F.linear(third.tokens, inner)  # [B, M, E]
        active = norm.gelu(between, inner_bias)
        ctx.save_for_backward(
            *first, packed, attended, lse, made, *second, asked, pairs, text.start, text.count, text.own, seen, text_lse, found, *third,
            between, active, branch, bias, gate, modulation, own_bias, cross_bias, inner_bias,
            inward, own_out, query, cross_out, inner, outer,
        )
        ctx.text, ctx.sizes, ctx.added = text._replace(states=None, start=None, count=None, own=None), sizes, added
        ctx.exact = together[0].dtype == torch.float32
        return third.stream, F.linear(active, outer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_branch: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        first, packed, attended, lse, made = norm.Normed(*_next(saved, 4)), *_next(saved, 4)
        second, asked, pairs, start, count, own, seen, text_lse, found = norm.Normed(*_next(saved, 4)), *_next(saved, 8)
        third, between, active = norm.Normed(*_next(saved, 4)), *_next(saved, 2)
        branch, bias, gate, modulation, own_bias, cross_bias, inner_bias, *weights = saved
        inward, own_out, query, cross_out, inner, outer = weights
        _, scale1, gate1, _, scale2, gate2, _, scale3, _ = modulation.split(1, dim=1)
        layers, _, heads = ctx.sizes
        trained = ctx.needs_input_grad[9]

        def weigh(grad: Tensor, tokens: Tensor) -> Tensor | None:
            return _weight_grad(grad, tokens, ctx.exact) if trained else None

        back, inner_sum = norm.gelu_backward(between, inner_bias, F.linear(grad_branch, outer.t()))
        outer_grad, inner_grad = weigh(grad_branch, active), weigh(back, third.tokens)
        at_third = norm.gate_norm_backward(grad, F.linear(back, inner.t()), third, scale3, found, cross_bias, gate2)
        cross_grad, back = weigh(at_third.branch, seen), F.linear(at_third.branch, cross_out.t())
        asked_grad, pairs_grad, *sums = _text_backward(asked, pairs, start, count, own, ctx.text, heads, seen, text_lse, back)
        query_grad = weigh(asked_grad, second.tokens)
        at_second = norm.gate_norm_backward(
            at_third.stream, F.linear(asked_grad, query.t()), second, scale2, made, own_bias, gate1
        )
        own_grad, back = weigh(at_second.branch, attended), F.linear(at_second.branch, own_out.t())
        packed_grad = torch.empty_like(packed)
        own_sums = attention.attend_backward(
            *_thirds(packed), None, None, None, heads, packed.shape[1], attended, lse, back, _thirds(packed_grad)
        )
        inward_grad = weigh(packed_grad, first.tokens)
        at_first = norm.gate_norm_backward(at_second.stream, F.linear(packed_grad, inward.t()), first, scale1, branch, bias, gate)
        nothing = torch.zeros_like(own_sums[0])  # of the keys' biases
        needs = ctx.needs_input_grad
        modulations = None
        if needs[5]:
            parts = [
                at_first.shift, at_first.scale, at_second.gate, at_second.shift, at_second.scale, at_third.gate, at_third.shift,
                at_third.scale, torch.zeros_like(at_first.shift),  # the last gate is used by who comes next
            ]
            modulations = torch.stack(parts, dim=1).to(modulation.dtype)
        before = (None, None, None) if branch is None else (
            at_first.branch, _bias_grad(at_first.total, needs[2]), at_first.gate[:, None].to(gate.dtype) if needs[3] else None
        )
        if not trained:
            rest = [None] * (len(needs) - 9)
        else:
            query_sum, value_sum = sums
            rest = [
                own_grad, _bias_grad(at_second.total, True), query_grad, query_sum, cross_grad, _bias_grad(at_third.total, True),
                inner_grad, inner_sum, outer_grad, *inward_grad.chunk(layers),
                *torch.cat([own_sums[0], nothing, own_sums[1]]).chunk(layers), *torch.cat([nothing, value_sum]).chunk(ctx.sizes[1]),
            ]
        return at_first.stream, *before, _added_grad(at_first.stream, ctx.added, needs[4]), modulations, pairs_grad, None, None, *rest


class _GateNorm(torch.autograd.Function):
    """`norm.gate_norm` of a stream alone: the modulated tokens, or the sum where there is no shift and scale."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, branch: Tensor, bias: Tensor, gate: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
        made = norm.gate_norm(hidden, branch, bias, gate, None, shift, scale)
        ctx.save_for_backward(*made, scale, branch, bias, gate)
        return made.stream if scale is None else made.tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *normed, scale, branch, bias, gate = ctx.saved_tensors
        grad = grad.contiguous()
        if scale is None:
            found = norm.gate_norm_backward(grad, None, None, None, branch, bias, gate)
        else:
            found = norm.gate_norm_backward(None, grad, norm.Normed(*normed), scale, branch, bias, gate)
        needs = ctx.needs_input_grad
        return (
            found.stream, found.branch, _bias_grad(found.total, needs[2]), found.gate[:, None].to(gate.dtype) if needs[3] else None,
            found.shift[:, None].to(scale.dtype) if needs[4] else None, found.scale[:, None].to(scale.dtype) if needs[5] else None,
        )


class _Product(torch.autograd.Function):
    """Linear layers of one input [..., D] as one product, outputs beside each other; their biases are not trained here."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, count: int, *layers: Tensor) -> Tensor:
        weight, bias = (_stacked(layers[at : at + count], tokens.dtype) for at in (0, count))
        ctx.save_for_backward(tokens, weight)
        ctx.count, ctx.exact = count, layers[0].dtype == torch.float32
        return F.linear(tokens, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight = ctx.saved_tensors
        back = F.linear(grad, weight.t()) if ctx.needs_input_grad[0] else None
        trained = ctx.needs_input_grad[2]
        weights = _weight_grad(grad, tokens, ctx.exact).chunk(ctx.count) if trained else [None] * ctx.count
        return back, None, *weights, *[None] * ctx.count


def _text_backward(
    query: Tensor, pairs: Tensor, start: Tensor, count: Tensor, own: Tensor, text: PackedText, heads: int, out: Tensor, lse: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the query [B, M, D] and of keys and values [S, 2D], and the two sums of `attention.attend_backward`."""
    size, copies = len(pairs), text.copies * text.nulls
    into, back = pairs.new_zeros(size + copies, pairs.shape[1]), torch.empty_like(query)
    sums = attention.attend_backward(
        query, *pairs.chunk(2, dim=-1), start, count, own, heads, text.longest, out, lse, grad, (back, *into.chunk(2, dim=-1))
    )
    if copies:
        into[size - text.nulls : size] = into[size:].unflatten(0, (text.copies, text.nulls)).sum(0, dtype=torch.float32)
    return back, into[:size], *sums


def _weight_grad(grad: Tensor, tokens: Tensor, exact: bool) -> Tensor:
    """A product's gradient of its weight. Float32 weights get theirs without rounding it to the products' type."""
    options = {"out_dtype": torch.float32} if exact and grad.is_cuda and grad.dtype != torch.float32 else {}
    return torch.mm(grad.flatten(0, -2).t(), tokens.flatten(0, -2), **options)


def _bias_grad(total: Tensor, needed: bool) -> Tensor | None:
    """From sums over each sample's tokens [B, D]."""
    return total.sum(0) if needed else None


def _added_grad(grad: Tensor, added: Tensor | None, needed: bool) -> Tensor | None:
    """Of what was added to the last samples, for each token or for all alike."""
    if not needed:
        return None
    own = grad[-len(added) :]
    return own.sum(1, keepdim=True) if added.shape[1] == 1 else own


def _stacked(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Weights or biases of several layers below each other; a single one of the right type is itself."""
    if len(parts) == 1:
        return parts[0].to(dtype)
    rows = [len(part) for part in parts]
    joined = torch.empty(sum(rows), *parts[0].shape[1:], dtype=dtype, device=parts[0].device)
    for place, part in zip(joined.split(rows), parts, strict=True):
        place.copy_(part)
    return joined


def _thirds(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of queries, keys and values beside each other [B, M, 3D]: queries [B, M, D], keys and values [B * M, D]."""
    query, key, value = packed.chunk(3, dim=-1)
    return query, key.flatten(0, 1), value.flatten(0, 1)


def _next(values: Any, count: int) -> list[Tensor]:
    return [next(values) for _ in range(count)]
