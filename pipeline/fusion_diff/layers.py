"""The parts of the prior: positions, timestep features, attentions, and a DiT block."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pipeline.fusion_diff.texts import KeysValues, TextContext


def sincos_positions(grid: int, width: int) -> Tensor:
    """Sine and cosine positions of a square grid, half of the width for each axis (Eq. 11).

    Args:
        grid: Patches on a side, G.
        width: D, a multiple of 4.

    Returns:
        [G * G, D] float32.
    """
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))  # [D/4]
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # [G, D/4]
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # [G, D/2]
    rows = axis[:, None, :].expand(grid, grid, -1)
    columns = axis[None, :, :].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=-1).reshape(grid * grid, width).float()  # [G*G, D]


def timestep_frequencies(step: Tensor, count: int) -> Tensor:
    """Sine and cosine features of timesteps.

    Args:
        step: n [B], integers from 0.
        count: F, the number of features; even.

    Returns:
        [B, F] float32: cosines, then sines.
    """
    half = count // 2
    exponents = -math.log(10_000.0) / half * torch.arange(half, dtype=torch.float32, device=step.device)
    frequencies = torch.exp(exponents)  # [F/2]
    angles = step.float()[:, None] * frequencies  # [B, F/2]
    return torch.cat([angles.cos(), angles.sin()], dim=1)  # [B, F]


def modulate(hidden: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """AdaLN (Eq. 12): LN(h) * (1 + scale) + shift.

    Args:
        hidden: h [B, M, D].
        shift: [B or 1, 1, D].
        scale: [B or 1, 1, D].

    Returns:
        [B, M, D].
    """
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
    """The four projections that both kinds of attention have."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)


class SelfAttention(Attention):
    """Multi-head self-attention over all tokens (MHSA of Eq. 13).

    `scaled_dot_product_attention` keeps logits and softmax in float32 under bfloat16 too: its kernels accumulate
    there whatever the type of the inputs. That is the full precision that the paper asks for.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, M, D] -> [B, M, D]."""
        projected = self.query(tokens), self.key(tokens), self.value(tokens)  # each [B, M, D]
        query, key, value = (split_heads(part, self.heads) for part in projected)  # each [B, H, M, C]
        return self.out(join_heads(F.scaled_dot_product_attention(query, key, value)))


class CrossAttention(Attention):
    """Multi-head attention from the tokens to the text (MHCA of Eq. 14)."""

    def keys_values(self, context: TextContext) -> KeysValues:
        """What `forward` needs of the texts. A sampler computes it once a query."""
        null = None if context.null is None else self._project(context.null)
        text = None if context.text is None else self._project(context.text)
        return KeysValues(null, text, context.mask, context.dropped)

    def forward(self, tokens: Tensor, text: KeysValues) -> Tensor:
        """tokens [B, M, D] -> [B, M, D]; the first B - B' rows, or those `dropped`, attend to the null condition."""
        query = split_heads(self.query(tokens), self.heads)  # [B, H, M, C]
        if text.dropped is not None:
            return self.out(self._attend_and_choose(query, text, text.dropped))
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

    def _project(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of states [B, T, D]: each [B, H, T, C]."""
        key, value = self.key(states), self.value(states)
        return split_heads(key, self.heads), split_heads(value, self.heads)

    def _attend_and_choose(self, query: Tensor, text: KeysValues, dropped: Tensor) -> Tensor:
        """query [B, H, M, C] -> [B, M, D]: every row sees a text, the first C the null condition too; one is taken."""
        assert text.null is not None and text.text is not None
        count = len(dropped)
        key, value = (part.expand(count, -1, -1, -1) for part in text.null)  # [C, H, N, C], no copy
        without = F.scaled_dot_product_attention(query[:count], key, value)
        within = F.scaled_dot_product_attention(query, *text.text, attn_mask=text.mask)
        chosen = torch.where(dropped, join_heads(without), join_heads(within[:count]))
        return torch.cat([chosen, join_heads(within[count:])])


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them (FFN of Eq. 15)."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.inner = nn.Linear(width, ratio * width)
        self.outer = nn.Linear(ratio * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, M, D] -> [B, M, D]."""
        return self.outer(F.gelu(self.inner(tokens), approximate="tanh"))


class BlockBody(nn.Module):
    """A block without its AdaLN: what the Control-Adapter copies."""

    def __init__(self, width: int, heads: int, ffn_ratio: int):
        super().__init__()
        self.self_attention = SelfAttention(width, heads)
        self.cross_attention = CrossAttention(width, heads)
        self.feed_forward = FeedForward(width, ffn_ratio)

    def forward(self, hidden: Tensor, modulation: Tensor, text: KeysValues, added: Tensor | None = None) -> Tensor:
        """The three sub-layers, each behind AdaLN and a gate (Eq. 13 to 15).

        Args:
            hidden: h_l-1 [B, M, D].
            modulation: [B or 1, 9, D]: shift, scale and gate of each sub-layer.
            text: This block's keys and values of the texts.
            added: A residual [C, M or 1, D] that is first added to the last C rows of `hidden`.

        Returns:
            h_l [B, M, D].
        """
        if added is not None:
            hidden = add_to_last_rows(hidden, added)
        parts = modulation.split(1, dim=1)  # nine, each [B or 1, 1, D]
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = parts
        hidden = hidden + gate1 * self.self_attention(modulate(hidden, shift1, scale1))
        hidden = hidden + gate2 * self.cross_attention(modulate(hidden, shift2, scale2), text)
        return hidden + gate3 * self.feed_forward(modulate(hidden, shift3, scale3))


class Block(nn.Module):
    """A DiT block: a body, and the AdaLN layer that modulates it."""

    def __init__(self, width: int, heads: int, ffn_ratio: int):
        super().__init__()
        self.ada_ln = nn.Linear(width, 9 * width)
        self.body = BlockBody(width, heads, ffn_ratio)

    def modulation(self, time: Tensor) -> Tensor:
        """Activated time embedding [B, D] -> shift, scale and gate of the three sub-layers [B, 9, D]."""
        return self.ada_ln(time).unflatten(1, (9, -1))

    def forward(self, hidden: Tensor, modulation: Tensor, text: KeysValues, added: Tensor | None = None) -> Tensor:
        """See `BlockBody.forward`."""
        return self.body(hidden, modulation, text, added)
