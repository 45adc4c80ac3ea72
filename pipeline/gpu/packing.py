"""Texts of a batch packed below each other, so that each row attends to its own stretch and to no padding."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.fusion_diff.texts import TextContext


class PackedText(NamedTuple):
    """The texts of a batch of B rows without padding.

    It takes the place of a `TextContext` and, once a block has projected it, of `KeysValues`: the plain models hand
    it on and call no more than `has_null`, `last` and `repeat`.
    """

    states: Tensor
    """[S, D], or a block's keys and values [S, 2D]: B' texts of T rows, then N rows of the null condition if needed."""
    start: Tensor
    """[B] int32: the first row of `states` that a sample sees."""
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    """[B] int32: how many rows it sees."""
    own: Tensor
    """[B] int32: `start` as if no two samples shared the null condition, each having a copy behind the S rows.

    The gradients of the null condition are written there, before the copies are summed.
    """
    copies: int
    """The number of those copies."""
    nulls: int
    """N, or 0 where no row needs the null condition."""
    longest: int
    """An upper bound of `count`."""

    @property
    def has_null(self) -> bool:
        """Whether some row may need the null condition."""
        return self.nulls > 0

    def last(self, rows: int) -> PackedText:
        """The texts of the last `rows` samples."""
        return self._replace(start=self.start[-rows:], count=self.count[-rows:], own=self.own[-rows:])

    def repeat(self, times: int) -> PackedText:
        """Every sample `times` times in a row."""
        start, count, own = (part.repeat_interleave(times) for part in (self.start, self.count, self.own))
        return self._replace(start=start, count=count, own=own)


def pack(context: TextContext, rows: int) -> PackedText:
    """Pack the texts of a batch.

    Args:
        context: Texts [B', T, D] and the null condition [1, N, D], where they are there.
        rows: B. Rows without a text come first and take the null condition, as do those that are `dropped`.

    Returns:
        The packed states [S, D] and each sample's stretch of them.
    """
    given = context.null if context.text is None else context.text
    assert given is not None
    device, text, lengths, tokens, texts = given.device, context.text, None, 0, 0
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
        copies, which = len(context.dropped), number
        without = F.pad(context.dropped[:, 0, 0], (0, rows - copies))
    else:
        copies = rows - texts
        without, which = number < copies, (number - copies).clamp(min=0)
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
    """Texts [B, T, D] with the tokens of `mask` [B, T] before the others, in order, and their number [B] int32."""
    order = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return text.gather(1, order[..., None].expand_as(text)), mask.sum(1, dtype=torch.int32)
