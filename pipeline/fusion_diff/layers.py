"""The parts of the prior: embedders, attentions, and a block's body."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pipeline.fusion_diff.texts import KeysValues, PackedText, TextContext

if TYPE_CHECKING:
    from pipeline.gpu.blocks import Stream
    from pipeline.gpu.products import Half, Scaling


def sincos_positions(grid: int, width: int) -> Tensor:
    """Sine and cosine positions of a square grid, [grid * grid, width]: a half for each axis (Eq. 11)."""
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))  # [D/4]
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # [G, D/4]
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # [G, D/2]
    rows = axis[:, None, :].expand(grid, grid, -1)
    columns = axis[None, :, :].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=-1).reshape(grid * grid, width).float()  # [G*G, D]


def timestep_frequencies(step: Tensor, count: int) -> Tensor:
    """Sine and cosine features of timesteps [B], in float32: [B, count]."""
    half = count // 2
    frequencies = torch.exp(
        -math.log(10_000.0) / half * torch.arange(half, dtype=torch.float32, device=step.device)
    )  # [F/2]
    angles = step.float()[:, None] * frequencies  # [B, F/2]
    return torch.cat([angles.cos(), angles.sin()], dim=1)  # [B, F]


def modulate(hidden: Tensor | Stream, shift: Tensor, scale: Tensor) -> Tensor:
    """AdaLN (Eq. 12): normalise hidden [B, M, D], then scale by 1 + scale and shift, both [B or 1, 1, D]."""
    if not isinstance(hidden, Tensor):
        return hidden.modulated(shift, scale)
    return F.layer_norm(hidden, hidden.shape[-1:], eps=1e-6) * (1 + scale) + shift


def add_to_last_rows(hidden: Tensor, residual: Tensor) -> Tensor:
    """Add residual [C, M or 1, D] to the last C rows of hidden [B, M, D]."""
    others = hidden.shape[0] - residual.shape[0]
    return hidden + residual if others == 0 else torch.cat([hidden[:others], hidden[others:] + residual])


def split_heads(features: Tensor, heads: int) -> Tensor:
    """[B, M, H*C] -> [B, H, M, C]."""
    return rearrange(features, "b m (h c) -> b h m c", h=heads)


def join_heads(features: Tensor) -> Tensor:
    """[B, H, M, C] -> [B, M, H*C]."""
    return rearrange(features, "b h m c -> b m (h c)")


class Attention(nn.Module):
    """The four projections that both kinds of attention have.

    Those of `together` read the same input. A GPU computes them as one matrix product, which keeps
    more of it busy; a CPU gains nothing, so there each keeps its own and the rounding that goes with it.
    """

    together: tuple[str, ...] = ()

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self._stacked: tuple[Tensor, Tensor] | None = None

    def project(self, tokens: Tensor) -> Sequence[Tensor]:
        """The outputs [B, M, D] of the layers in `together` for tokens [B, M, D]."""
        if self._stacked is None and not tokens.is_cuda:
            return [getattr(self, name)(tokens) for name in self.together]
        weight, bias = self.stacked() if self._stacked is None else self._stacked
        return F.linear(tokens, weight, bias).chunk(len(self.together), dim=-1)

    def projections(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Weights and biases of the layers in `together`: one of each where they are stacked."""
        if self._stacked is not None:
            return self._stacked[:1], self._stacked[1:]
        layers = [getattr(self, name) for name in self.together]
        return [layer.weight for layer in layers], [layer.bias for layer in layers]

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Weights [L*D, D] and biases [L*D] of the L layers in `together`."""
        layers = [getattr(self, name) for name in self.together]
        return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])

    @torch.no_grad()
    def stack(self) -> None:
        """Stack the weights as they are now, for inference; training again forgets it."""
        self._stacked = self.stacked()

    def train(self, mode: bool = True) -> Attention:
        if mode:
            self._stacked = None
        return super().train(mode)


class SelfAttention(Attention):
    """Multi-head self-attention over all tokens (MHSA of Eq. 13).

    `scaled_dot_product_attention` keeps the logits and the softmax in float32 under bfloat16 too:
    its kernels accumulate there whatever the inputs' type, which is the full precision the paper asks for.
    """

    together = ("query", "key", "value")

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, M, D] -> [B, M, D]."""
        query, key, value = (split_heads(part, self.heads) for part in self.project(tokens))  # [B, H, M, C]
        return self.out(join_heads(F.scaled_dot_product_attention(query, key, value)))


class CrossAttention(Attention):
    """Multi-head attention from the tokens to the text (MHCA of Eq. 14)."""

    together = ("key", "value")

    def keys_values(self, context: TextContext | PackedText) -> KeysValues | PackedText:
        """What `forward` needs of the texts; compute it once a query when sampling."""
        if isinstance(context, PackedText):
            return _fused().keys_values(self, context)
        null, text = (
            None if states is None else tuple(split_heads(part, self.heads) for part in self.project(states))
            for states in (context.null, context.text)
        )
        return KeysValues(null, text, context.mask, context.dropped)

    def forward(self, tokens: Tensor, text: KeysValues) -> Tensor:
        """tokens [B, M, D] -> [B, M, D]; the first B - B' rows, or those `dropped`, attend to the null condition."""
        query = split_heads(self.query(tokens), self.heads)  # [B, H, M, C]
        if text.dropped is not None:
            return self.out(self.attend_and_choose(query, text))
        with_text = 0 if text.text is None else len(text.text[0])
        without, within = query.split([len(query) - with_text, with_text])  # [B - B', H, M, C], [B', H, M, C]
        attended = []
        if text.null is not None:
            key, value = (part.expand(len(without), -1, -1, -1) for part in text.null)  # [B - B', H, N, C], no copy
            attended.append(F.scaled_dot_product_attention(without, key, value))
        if text.text is not None:
            attended.append(F.scaled_dot_product_attention(within, *text.text, attn_mask=text.mask))
        joined = attended[0] if len(attended) == 1 else torch.cat(attended)  # [B, H, M, C]
        return self.out(join_heads(joined))

    def attend_and_choose(self, query: Tensor, text: KeysValues) -> Tensor:
        """query [B, H, M, C] -> [B, M, D]: all rows attend to a text, the first few to the null condition too, and one is taken."""
        count = len(text.dropped)
        key, value = (part.expand(count, -1, -1, -1) for part in text.null)  # no copy
        without = F.scaled_dot_product_attention(query[:count], key, value)
        within = F.scaled_dot_product_attention(query, *text.text, attn_mask=text.mask)
        chosen = torch.where(text.dropped, join_heads(without), join_heads(within[:count]))
        return torch.cat([chosen, join_heads(within[count:])])


class FeedForward(nn.Module):
    """Two linear layers with a GELU between (FFN of Eq. 15)."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.inner = nn.Linear(width, ratio * width)
        self.outer = nn.Linear(ratio * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, M, D] -> [B, M, D]."""
        return self.outer(F.gelu(self.inner(tokens), approximate="tanh"))


class BlockBody(nn.Module):
    """A block without its AdaLN: what the Control-Adapter copies."""

    products: Half | None = None
    """Its weights prepared for sampling with fused kernels; training again forgets them."""
    scaling: Scaling | None = None
    """Shared by blocks that fused kernels train with products of 8 bits."""

    def __init__(self, width: int, heads: int, ffn_ratio: int):
        super().__init__()
        self.self_attention = SelfAttention(width, heads)
        self.cross_attention = CrossAttention(width, heads)
        self.feed_forward = FeedForward(width, ffn_ratio)

    def prepare(self, bits8: bool = False) -> None:
        """Prepare the weights as they are now, in 8 bits or as they are."""
        self.products = _fused().prepared(self, self.feed_forward.outer.weight.dtype, bits8)

    def train(self, mode: bool = True) -> BlockBody:
        if mode:
            self.products = None
        return super().train(mode)

    def forward(
        self, hidden: Tensor | Stream, modulation: Tensor, text: KeysValues | PackedText, added: Tensor | None = None
    ) -> Tensor | Stream:
        """Eq. 13 to 15. hidden [B, M, D]; modulation [B or 1, 9, D]: shift, scale, gate of each sub-layer.

        added [C, M or 1, D]: to the last C rows first. It is here so that it needs no kernel of its own.
        Packed texts are for the kernels of `pipeline.gpu.blocks`, which leave the last sum to who comes next.
        """
        if isinstance(text, PackedText):
            return _fused().block(self, hidden, modulation, text, added)
        if added is not None:
            hidden = add_to_last_rows(hidden, added)
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = modulation.split(
            1, dim=1
        )  # each [B or 1, 1, D]
        hidden = hidden + gate1 * self.self_attention(modulate(hidden, shift1, scale1))
        hidden = hidden + gate2 * self.cross_attention(modulate(hidden, shift2, scale2), text)
        return hidden + gate3 * self.feed_forward(modulate(hidden, shift3, scale3))


class Block(nn.Module):
    """A DiT block: its own AdaLN outputs, and its body."""

    def __init__(self, width: int, heads: int, ffn_ratio: int):
        super().__init__()
        self.ada_ln = nn.Linear(width, 9 * width)
        self.body = BlockBody(width, heads, ffn_ratio)

    def modulation(self, time: Tensor) -> Tensor:
        """Activated time embedding [B, D] -> shift, scale, gate of three sub-layers [B, 9, D]."""
        return self.ada_ln(time).unflatten(1, (9, -1))

    def forward(
        self, hidden: Tensor | Stream, modulation: Tensor, text: KeysValues | PackedText, added: Tensor | None = None
    ) -> Tensor | Stream:
        return self.body(hidden, modulation, text, added)


def train_in_8_bits(bodies: Iterable[BlockBody]) -> None:
    """Let fused kernels multiply numbers of 8 bits in these bodies, with one factor for all gradients. ValueError where a GPU cannot."""
    check_8_bits()
    scaling = _fused().Scaling()
    for body in bodies:
        body.scaling = scaling


def check_8_bits() -> None:
    """ValueError unless there is a GPU that multiplies them."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9):
        raise ValueError("fp8 needs a GPU of compute capability 8.9 or more")


def _fused() -> ModuleType:
    """Imported when first needed: it wants Triton, which only comes with a GPU's build of torch."""
    from pipeline.gpu import blocks as fused

    return fused
