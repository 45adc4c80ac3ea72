"""A block of the prior from fused kernels: what a GPU trains and samples with in half precision.

The matrix products stay with the library that is quickest at them; everything between them is Triton
(`pipeline.gpu.kernels`). Forward and backward of a block are written out, so that what one kernel makes of another's
gradient is passed on without detours: the sums that biases need are made on the way, and what a block adds to the residual
stream is added by the kernel that reads it next. `BlockBody.forward` is the same arithmetic in plain operators, and the
reference in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.fusion_diff.texts import PackedText
from pipeline.gpu.kernels import attention, norm
from pipeline.gpu.products import Bits8, Half, Scaling, stacked, weight_grad

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
    scaling: Scaling | None = None
    """Of gradients in 8 bits, which begin where the stream ends."""

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, rows: slice) -> Stream:
        """Some rows of the batch."""
        return Stream(
            self.hidden[rows],
            self.branch[rows],
            self.bias,
            self.gate[rows] if len(self.gate) > 1 else self.gate,
            self.scaling,
        )

    def parts(self) -> tuple[Tensor, ...]:
        return self.hidden, self.branch, self.bias, self.gate

    def summed(self) -> Tensor:
        """[B, M, D]"""
        return _GateNorm.apply(*self.parts(), None, None, None)

    def modulated(self, shift: Tensor, scale: Tensor) -> Tensor:
        """`layers.modulate` of the sum, [B, M, D]."""
        return _GateNorm.apply(*self.parts(), shift, scale, self.scaling)


def keys_values(layer: CrossAttention, text: PackedText) -> PackedText:
    """A block's keys and values of the texts. Their biases' gradients come with the attention's."""
    weights, biases = layer.projections()
    return text._replace(states=_Product.apply(text.states, len(weights), *weights, *biases))


def prepared(body: BlockBody, dtype: torch.dtype, bits8: bool = False) -> Half:
    """A block's products for sampling tokens of `dtype`, with the weights as they are now. ValueError on sizes that 8 bits cannot have."""
    own, cross, feed = body.self_attention, body.cross_attention, body.feed_forward
    given = (
        own.projections()[0],
        own.out.weight,
        cross.query.weight,
        cross.out.weight,
        feed.inner.weight,
        feed.outer.weight,
    )
    return Bits8(_named(*given), dtype) if bits8 else Half(_named(*given, dtype=dtype))


def block(
    body: BlockBody, hidden: Tensor | Stream, modulation: Tensor, text: PackedText, added: Tensor | None
) -> Stream:
    """`BlockBody.forward`: tokens [B, M, D] and modulation [B or 1, 9, D] in, tokens out."""
    before = hidden.parts() if isinstance(hidden, Stream) else (hidden, None, None, None)
    own, cross, feed = body.self_attention, body.cross_attention, body.feed_forward
    inward, inward_biases = own.projections()
    if not torch.is_grad_enabled():
        biases = Biases(
            stacked(inward_biases, before[0].dtype), own.out.bias, cross.query.bias, cross.out.bias, feed.inner.bias
        )
        made = _forward(
            body.products or prepared(body, before[0].dtype),
            before,
            added,
            modulation,
            text.states,
            text,
            biases,
            own.heads,
        )
        return Stream(made.third.stream, made.branch, feed.outer.bias, modulation[:, 8:9])
    pair_biases = cross.projections()[1]
    stream, branch = _Block.apply(
        *before,
        added,
        modulation,
        text.states,
        text,
        (len(inward), len(pair_biases), own.heads, body.scaling),
        own.out.weight,
        own.out.bias,
        cross.query.weight,
        cross.query.bias,
        cross.out.weight,
        cross.out.bias,
        feed.inner.weight,
        feed.inner.bias,
        feed.outer.weight,
        *inward,
        *inward_biases,
        *pair_biases,
    )
    return Stream(stream, branch, feed.outer.bias, modulation[:, 8:9], body.scaling)


class Biases(NamedTuple):
    """Of a block's layers, but for the last: who reads the stream next adds that one's."""

    inward: Tensor
    own_out: Tensor
    query: Tensor
    cross_out: Tensor
    inner: Tensor


class Made(NamedTuple):
    """What the forward pass of a block leaves for the backward one."""

    first: norm.Normed
    packed: Tensor
    """[B, M, 3D]: queries, keys, values."""
    attended: Tensor
    lse: Tensor
    made: Tensor
    second: norm.Normed
    asked: Tensor
    seen: Tensor
    text_lse: Tensor
    found: Tensor
    third: norm.Normed
    between: Tensor | None
    """[B, M, E]: before the activation, without its bias."""
    branch: Tensor
    kept: tuple[Tensor | None, ...]
    """What the gradients of the weights need: of inward, own_out, query, cross_out, inner, outer."""


def _forward(
    products: Half,
    before: tuple[Tensor | None, ...],
    added: Tensor | None,
    modulation: Tensor,
    pairs: Tensor,
    text: PackedText,
    biases: Biases,
    heads: int,
) -> Made:
    """Eq. 13 to 15, from one residual stream to the next and what is still to be added to it."""
    shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, _ = modulation.split(1, dim=1)  # each [B or 1, 1, D]
    small, all_small = (
        products.bits8,
        products.bits8 and not products.gradients,
    )  # gradients need the attentions' outputs whole
    first = norm.gate_norm(*before, added, shift1, scale1, small)
    read1 = products.read(first.tokens)
    packed = products.linear("inward", read1, biases.inward)
    attended, lse = attention.attend(*_thirds(packed), None, None, heads, all_small)
    read2 = products.read(attended)
    made = products.linear("own_out", read2)
    second = norm.gate_norm(first.stream, made, biases.own_out, gate1, None, shift2, scale2, small)
    read3 = products.read(second.tokens)
    asked = products.linear("query", read3, biases.query.to(made.dtype))
    seen, text_lse = attention.attend(asked, *pairs.chunk(2, dim=-1), text.start, text.count, heads, all_small)
    read4 = products.read(seen)
    found = products.linear("cross_out", read4)
    third = norm.gate_norm(second.stream, found, biases.cross_out, gate2, None, shift3, scale3, small)
    read5 = products.read(third.tokens)
    between, read6 = products.feed(read5, biases.inner)
    kept = tuple(products.kept(read) for read in (read1, read2, read3, read4, read5, read6))
    branch = products.linear("outer", read6)
    return Made(first, packed, attended, lse, made, second, asked, seen, text_lse, found, third, between, branch, kept)


class _Block(torch.autograd.Function):
    """`_forward` with its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        branch: Tensor | None,
        bias: Tensor | None,
        gate: Tensor | None,
        added: Tensor | None,
        modulation: Tensor,
        pairs: Tensor,
        text: PackedText,
        sizes: tuple[int, int, int, Scaling | None],
        own_out: Tensor,
        own_bias: Tensor,
        query: Tensor,
        query_bias: Tensor,
        cross_out: Tensor,
        cross_bias: Tensor,
        inner: Tensor,
        inner_bias: Tensor,
        outer: Tensor,
        *together: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count, _, heads, scaling = sizes
        given, dtype = (together[:count], own_out, query, cross_out, inner, outer), hidden.dtype
        asked = {"exact": outer.dtype == torch.float32, "gradients": True, "trained": ctx.needs_input_grad[9]}
        if scaling is None:
            products = Half(_named(*given, dtype=dtype), **asked)
        else:
            products = Bits8(_named(*given), dtype, **asked, scaling=scaling)
        biases = Biases(stacked(together[count : 2 * count], dtype), own_bias, query_bias, cross_bias, inner_bias)
        made = _forward(products, (hidden, branch, bias, gate), added, modulation, pairs, text, biases, heads)
        first, second = (
            normed._replace(tokens=None) for normed in (made.first, made.second)
        )  # `kept` has what is needed of them
        ctx.made = made._replace(first=first, second=second, third=None, branch=None)
        ctx.products, ctx.text, ctx.sizes, ctx.added = products, text._replace(states=None), sizes, added
        ctx.save_for_backward(branch, bias, gate, modulation, pairs, *biases[1:], *made.third[:1], *made.third[2:])
        return made.third.stream, made.branch

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_branch: Tensor) -> tuple[Tensor | None, ...]:
        branch, bias, gate, modulation, pairs, own_bias, _, cross_bias, inner_bias, stream, mean, rstd = (
            ctx.saved_tensors
        )
        made, products, text, needs = ctx.made, ctx.products, ctx.text, ctx.needs_input_grad
        ctx.made = ctx.products = None  # as saved tensors are given up
        _, scale1, gate1, _, scale2, gate2, _, scale3, _ = modulation.split(1, dim=1)
        layers, pair_layers, heads, _ = ctx.sizes
        trained = needs[9]

        def weigh(grad: Any, number: int) -> Tensor | None:
            return products.weigh(grad, made.kept[number]) if trained else None

        products.begin(grad)
        factor = products.grad_factor
        read, _ = products.read_grad(grad_branch)
        outer_grad = weigh(read, 5)
        read, inner_sum = products.gelu_backward(made.between, inner_bias, products.back("outer", read))
        inner_grad = weigh(read, 4)
        third = norm.Normed(stream, stream, mean, rstd)
        at_third = norm.gate_norm_backward(
            grad, products.back("inner", read), third, scale3, made.found, cross_bias, gate2, factor
        )
        read, _ = products.read_grad(at_third.branch)
        cross_grad, back = weigh(read, 3), products.back("cross_out", read)
        asked_grad, pairs_grad = _text_backward(made, pairs, text, heads, back)
        value_sum = norm.column_sums(back)  # a query's weights sum to one
        read, query_sum = products.read_grad(asked_grad, sums=True)
        query_grad = weigh(read, 2)
        at_second = norm.gate_norm_backward(
            at_third.stream, products.back("query", read), made.second, scale2, made.made, own_bias, gate1, factor
        )
        read, _ = products.read_grad(at_second.branch)
        own_grad, back = weigh(read, 1), products.back("own_out", read)
        packed_grad = torch.empty_like(made.packed)
        attention.attend_backward(
            *_thirds(made.packed),
            None,
            None,
            None,
            heads,
            packed_grad.shape[1],
            made.attended,
            made.lse,
            back,
            _thirds(packed_grad),
        )
        read, inward_sum = products.read_grad(packed_grad, sums=True)
        inward_grad = weigh(read, 0)
        at_first = norm.gate_norm_backward(
            at_second.stream, products.back("inward", read), made.first, scale1, branch, bias, gate
        )
        modulations = _modulation_grad(at_first, at_second, at_third, modulation.dtype) if needs[5] else None
        before = (
            (None, None, None)
            if branch is None
            else (
                at_first.branch,
                _bias_grad(at_first.total, needs[2]),
                at_first.gate[:, None].to(gate.dtype) if needs[3] else None,
            )
        )
        rest = [None] * (len(needs) - 9)
        if trained:
            query_part, key_part, value_part = inward_sum.chunk(3)
            nothing = torch.zeros_like(key_part)  # a bias of the keys moves all logits of a query alike
            rest = [
                own_grad,
                _bias_grad(at_second.total, True),
                query_grad,
                query_sum,
                cross_grad,
                _bias_grad(at_third.total, True),
                inner_grad,
                inner_sum,
                outer_grad,
                *inward_grad.chunk(layers),
                *torch.cat([query_part, nothing, value_part]).chunk(layers),
                *torch.cat([nothing, value_sum]).chunk(pair_layers),
            ]
        return (
            at_first.stream,
            *before,
            _added_grad(at_first.stream, ctx.added, needs[4]),
            modulations,
            pairs_grad,
            None,
            None,
            *rest,
        )


class _GateNorm(torch.autograd.Function):
    """`norm.gate_norm` of a stream alone: the modulated tokens, or the sum where there is no shift and scale."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        branch: Tensor,
        bias: Tensor,
        gate: Tensor,
        shift: Tensor | None,
        scale: Tensor | None,
        scaling: Scaling | None,
    ) -> Tensor:
        made = norm.gate_norm(hidden, branch, bias, gate, None, shift, scale)
        ctx.save_for_backward(*made, scale, branch, bias, gate)
        ctx.scaling = scaling
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
        if ctx.scaling is not None:
            ctx.scaling.observe(found.stream)
        needs = ctx.needs_input_grad
        return (
            found.stream,
            found.branch,
            _bias_grad(found.total, needs[2]),
            found.gate[:, None].to(gate.dtype) if needs[3] else None,
            found.shift[:, None].to(scale.dtype) if needs[4] else None,
            found.scale[:, None].to(scale.dtype) if needs[5] else None,
            None,
        )


class _Product(torch.autograd.Function):
    """Linear layers of one input [..., D] as one product, outputs beside each other; their biases are not trained here."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, count: int, *layers: Tensor) -> Tensor:
        weight, bias = (stacked(layers[at : at + count], tokens.dtype) for at in (0, count))
        ctx.save_for_backward(tokens, weight)
        ctx.count, ctx.exact = count, layers[0].dtype == torch.float32
        return F.linear(tokens, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight = ctx.saved_tensors
        back = F.linear(grad, weight.t()) if ctx.needs_input_grad[0] else None
        trained = ctx.needs_input_grad[2]
        weights = weight_grad(grad, tokens, ctx.exact).chunk(ctx.count) if trained else [None] * ctx.count
        return back, None, *weights, *[None] * ctx.count


def _text_backward(made: Made, pairs: Tensor, text: PackedText, heads: int, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the queries [B, M, D] and of keys and values [S, 2D]."""
    size, copies = len(pairs), text.copies * text.nulls
    into, back = pairs.new_zeros(size + copies, pairs.shape[1]), torch.empty_like(made.asked)
    attention.attend_backward(
        made.asked,
        *pairs.chunk(2, dim=-1),
        text.start,
        text.count,
        text.own,
        heads,
        text.longest,
        made.seen,
        made.text_lse,
        grad,
        (back, *into.chunk(2, dim=-1)),
    )
    if copies:
        into[size - text.nulls : size] = into[size:].unflatten(0, (text.copies, text.nulls)).sum(0, dtype=torch.float32)
    return back, into[:size]


def _modulation_grad(
    first: norm.NormGrads, second: norm.NormGrads, third: norm.NormGrads, dtype: torch.dtype
) -> Tensor:
    """[B, 9, D]; the last gate's comes from who reads the stream next."""
    parts = first.shift, first.scale, second.gate, second.shift, second.scale, third.gate, third.shift, third.scale
    return torch.stack([*parts, torch.zeros_like(first.shift)], dim=1).to(dtype)


def _bias_grad(total: Tensor, needed: bool) -> Tensor | None:
    """From sums over each sample's tokens [B, D]."""
    return total.sum(0) if needed else None


def _added_grad(grad: Tensor, added: Tensor | None, needed: bool) -> Tensor | None:
    """Of what was added to the last samples, for each token or for all alike."""
    if not needed:
        return None
    own = grad[-len(added) :]
    return own.sum(1, keepdim=True) if added.shape[1] == 1 else own


def _named(inward: Sequence[Tensor], *others: Tensor, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The weights of a block's products, in `dtype` or as they are."""
    names = "inward", "own_out", "query", "cross_out", "inner", "outer"
    return {
        name: stacked(part, dtype or part[0].dtype)
        for name, part in zip(names, (inward, *([other] for other in others)), strict=True)
    }


def _thirds(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of queries, keys and values beside each other [B, M, 3D]: queries [B, M, D], keys and values [B * M, D]."""
    query, key, value = packed.chunk(3, dim=-1)
    return query, key.flatten(0, 1), value.flatten(0, 1)
