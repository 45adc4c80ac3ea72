"""Fused forms of the plain modules: subclasses with the same parameters, into which `fuse` turns modules in place.

As FSDP2's `fully_shard` does, `fuse` exchanges a module's class. Its parameters, their names and every reference to it
stay. Fused modules work on packed texts wherever texts come in half precision, and are the plain ones elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.fusion_diff.control import ControlAdapter
from pipeline.fusion_diff.layers import BlockBody, CrossAttention
from pipeline.fusion_diff.prior import Modulation, Prior
from pipeline.fusion_diff.texts import BlockTexts, KeysValues, TextContext
from pipeline.gpu.blocks import PreparedBlock, keys_values, prepare_block, prepare_pair, run_block
from pipeline.gpu.packing import PackedText, pack
from pipeline.gpu.pending import PendingSum
from pipeline.gpu.products import GradientScale

FEW_TOKENS = 512
"""Packed tokens up to which one product makes all blocks' keys and values: each alone would leave a GPU half empty."""


class FusedTexts:
    """Keys and values of all blocks as one product, where few texts are sampled with; of a prior or an adapter."""

    pairs: tuple[Tensor, Tensor] | None = None
    """Weights [L*2D, D] and biases [L*2D] of the L blocks' keys and values; training again forgets them."""

    def text_keys_values(self, context: TextContext | PackedText) -> BlockTexts:
        """See `Prior`."""
        few = isinstance(context, PackedText) and len(context.states) <= FEW_TOKENS
        if self.pairs is None or not few or torch.is_grad_enabled():
            return super().text_keys_values(context)  # type: ignore[misc]  # of the class beside this one
        packed = cast(PackedText, context)
        states = F.linear(packed.states, *self.pairs)  # [S, L*2D]
        parts = states.split(2 * packed.states.shape[1], dim=1)
        return cast(BlockTexts, [packed._replace(states=part) for part in parts])

    def train(self, mode: bool = True) -> Any:
        """Entering training mode forgets what was prepared."""
        if mode:
            self.pairs = None
        return super().train(mode)  # type: ignore[misc]


class FusedPrior(FusedTexts, Prior):
    """Packs the texts, and reads the last block's pending sum in its last layer."""

    def text_context(  # type: ignore[override]  # the plain model hands packed texts on unread
        self, text_states: Tensor | None, text_mask: Tensor | None, rows: int, dropped: Tensor | None = None
    ) -> TextContext | PackedText:
        context = super().text_context(text_states, text_mask, rows, dropped)
        given = context.null if context.text is None else context.text
        return context if given is None or given.dtype.itemsize != 2 else pack(context, rows)

    def output(self, hidden: Tensor | PendingSum, modulation: Modulation) -> Tensor:
        if not isinstance(hidden, PendingSum):
            return super().output(hidden, modulation)
        shift, scale = modulation.final.split(1, dim=1)  # each [B or 1, 1, D]
        return self.unpatchify(hidden.modulated(shift, scale))


class FusedControlAdapter(FusedTexts, ControlAdapter):
    """Adds up the pending sum behind each copied block."""

    def copied_block(
        self, index: int, hidden: Tensor | PendingSum, added: Tensor, modulation: Modulation, text: BlockTexts
    ) -> Tensor:
        tokens = self.bodies[index](hidden, modulation.blocks[index][-len(hidden) :], text[index], added)
        return tokens.summed() if isinstance(tokens, PendingSum) else tokens


class FusedCrossAttention(CrossAttention):
    """Keys and values as one product."""

    pair: tuple[Tensor, Tensor] | None = None
    """Their weights and biases, stacked for sampling; training again forgets them."""

    def keys_values(self, context: TextContext | PackedText) -> KeysValues | PackedText:  # type: ignore[override]  # see FusedPrior
        if isinstance(context, PackedText):
            return keys_values(self, context, self.pair)
        return super().keys_values(context)

    def train(self, mode: bool = True) -> FusedCrossAttention:
        """Entering training mode forgets what was prepared."""
        if mode:
            self.pair = None
        return super().train(mode)


class FusedBlockBody(BlockBody):
    """A block from fused kernels, for packed texts."""

    prepared: PreparedBlock | None = None
    """Its weights as sampling multiplies them; training again forgets them."""
    gradient_scale: GradientScale | None = None
    """Of 8-bit gradients, shared by all blocks of a model. None: products in the type of the tokens."""

    def forward(  # type: ignore[override]  # the plain model hands a pending sum on unread
        self,
        hidden: Tensor | PendingSum,
        modulation: Tensor,
        text: KeysValues | PackedText,
        added: Tensor | None = None,
    ) -> Tensor | PendingSum:
        if isinstance(text, PackedText):
            return run_block(self, hidden, modulation, text, added)
        assert isinstance(hidden, Tensor)
        return super().forward(hidden, modulation, text, added)

    def train(self, mode: bool = True) -> FusedBlockBody:
        """Entering training mode forgets what was prepared."""
        if mode:
            self.prepared = None
        return super().train(mode)


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    Prior: FusedPrior,
    ControlAdapter: FusedControlAdapter,
    CrossAttention: FusedCrossAttention,
    BlockBody: FusedBlockBody,
}


def fuse(model: nn.Module, fp8: bool = False) -> None:
    """Turn a model's modules into their fused forms, in place.

    Args:
        model: A prior, an adapter, or both; modules that are fused already stay so.
        fp8: Train with 8-bit products, and one factor for all gradients of the model.
    """
    for module in model.modules():
        module.__class__ = FUSED.get(type(module), type(module))
    scale = GradientScale() if fp8 else None
    for body in fused_bodies(model):
        body.gradient_scale = scale


@torch.no_grad()
def prepare(model: nn.Module, fp8: bool = False) -> None:
    """Prepare a fused model's weights, as they are now, for sampling in its type.

    Raises:
        ValueError: A size that 8-bit products cannot have.
    """
    for body in fused_bodies(model):
        if body.prepared is None or body.prepared.products.fp8 != fp8:
            body.prepared = prepare_block(body, body.feed_forward.outer.weight.dtype, fp8)
    for module in model.modules():
        if isinstance(module, FusedTexts) and module.pairs is None:
            _prepare_pairs(module, [body.cross_attention for body in fused_bodies(cast(nn.Module, module))])


def _prepare_pairs(module: FusedTexts, attentions: Sequence[CrossAttention]) -> None:
    """Stack the weights of all blocks' keys and values; each block's own are parts of them."""
    made = [prepare_pair(attention, attention.key.weight.dtype) for attention in attentions]
    weights, biases = (torch.cat(parts) for parts in zip(*made, strict=True))
    module.pairs = weights, biases
    for attention, *pair in zip(attentions, weights.chunk(len(made)), biases.chunk(len(made)), strict=True):
        if isinstance(attention, FusedCrossAttention):
            attention.pair = pair[0], pair[1]


def fused_bodies(model: nn.Module) -> Iterable[FusedBlockBody]:
    """The fused blocks of a model."""
    return (module for module in model.modules() if isinstance(module, FusedBlockBody))
