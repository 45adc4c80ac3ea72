"""What the prior sees of texts: a batch's conditions, and a block's keys and values of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class TextContext(NamedTuple):
    """Texts at the prior's width. Rows without a text come first in a batch and share `null`.

    Either they have no row in `text`, or, where `dropped` says which they are, one that nobody sees.
    """

    null: Tensor | None
    """[1, N, D]: the null condition, where some row needs it."""
    text: Tensor | None
    """[B', T, D]: the texts of the last B' rows of the batch."""
    mask: Tensor | None
    """[B', 1, 1, T] bool: True at a token, False at padding. None: no padding."""
    dropped: Tensor | None = None
    """[C, 1, 1] bool, with B' = B: True at those of the first C rows that take the null condition instead of their text.

    How many do is a value then and no shape, so that one recording of a GPU's work serves every batch.
    """

    @property
    def has_null(self) -> bool:
        """Whether some row may need the null condition."""
        return self.null is not None

    def last(self, rows: int) -> TextContext:
        """The texts of the last `rows` alone, all of which have one."""
        return TextContext(None, self.text[-rows:], None if self.mask is None else self.mask[-rows:])


class KeysValues(NamedTuple):
    """One cross-attention's keys and values of a `TextContext`; independent of the timestep."""

    null: tuple[Tensor, Tensor] | None
    """Each [1, H, N, C]."""
    text: tuple[Tensor, Tensor] | None
    """Each [B', H, T, C]."""
    mask: Tensor | None
    """[B', 1, 1, T]"""
    dropped: Tensor | None = None
    """[C, 1, 1]"""

    def last(self, rows: int) -> KeysValues:
        """Of the last `rows` texts alone."""
        return KeysValues(
            None, tuple(states[-rows:] for states in self.text), None if self.mask is None else self.mask[-rows:]
        )

    def repeat(self, times: int) -> KeysValues:
        """Every text `times` times in a row; the shared null condition needs no copies."""
        repeated = None if self.text is None else tuple(states.repeat_interleave(times, dim=0) for states in self.text)
        return self._replace(
            text=repeated, mask=None if self.mask is None else self.mask.repeat_interleave(times, dim=0)
        )


class PackedText(NamedTuple):
    """The texts of a batch below each other, so that each row of the batch attends to its own stretch and to no padding."""

    states: Tensor
    """[S, D], or a block's keys and values [S, 2D]: B' texts of T rows each, then N of the null condition where some row needs it."""
    start: Tensor
    """[B] int32: the first row of `states` that a sample sees."""
    count: Tensor
    """[B] int32: how many."""
    own: Tensor
    """[B] int32: `start` as if no two samples shared the null condition: each has a copy of its own behind the S rows.

    There its gradient is written, before the copies are summed.
    """
    copies: int
    """How many of those there are."""
    nulls: int
    """N, or 0 where no row needs it."""
    longest: int
    """An upper bound of `count`."""

    @property
    def has_null(self) -> bool:
        return self.nulls > 0

    def last(self, rows: int) -> PackedText:
        """The texts of the last `rows` samples."""
        return self._replace(start=self.start[-rows:], count=self.count[-rows:], own=self.own[-rows:])

    def repeat(self, times: int) -> PackedText:
        """Every sample `times` times in a row."""
        return self._replace(
            **{name: getattr(self, name).repeat_interleave(times) for name in ("start", "count", "own")}
        )


Texts = Sequence[KeysValues] | Sequence[PackedText]
"""Keys and values of the texts, one for each block."""


def pack(context: TextContext, rows: int) -> PackedText:
    """The texts of a batch of `rows`: those without one come first and take the null condition, or those that are `dropped`."""
    device = (context.null if context.text is None else context.text).device
    text, lengths, tokens, texts = context.text, None, 0, 0
    if text is not None:
        texts, tokens, _ = text.shape
        lengths = torch.full((texts,), tokens, dtype=torch.int32, device=device)
        if context.mask is not None:
            text, lengths = _to_the_front(text, context.mask[:, 0, 0])
    parts = [part.flatten(0, 1) for part in (text, context.null) if part is not None]
    states = torch.cat(parts) if len(parts) > 1 else parts[0]
    total, nulls = len(states), 0 if context.null is None else context.null.shape[1]
    number = torch.arange(rows, dtype=torch.int32, device=device)
    if context.dropped is not None:
        without, copies, which = (
            F.pad(context.dropped[:, 0, 0], (0, rows - len(context.dropped))),
            len(context.dropped),
            number,
        )
    else:
        without, copies = number < rows - texts, rows - texts
        which = (number - copies).clamp(min=0)
        lengths = None if lengths is None else F.pad(lengths, (copies, 0))
    start = which * tokens
    count = torch.zeros_like(start) if lengths is None else lengths
    return PackedText(
        states,
        torch.where(without, texts * tokens, start),
        torch.where(without, nulls, count),
        torch.where(without, total + number * nulls, start),
        copies,
        nulls,
        max(tokens, nulls),
    )


def _to_the_front(text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Texts [B, T, D] with the tokens of `mask` [B, T] before the others, in their order, and how many each has [B] int32."""
    order = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return text.gather(1, order[..., None].expand_as(text)), mask.sum(1, dtype=torch.int32)
