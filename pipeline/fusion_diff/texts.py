"""What the prior sees of texts: the conditions of a batch, and one block's keys and values of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class TextContext(NamedTuple):
    """The texts c of a batch of B rows at the prior's width.

    Rows without a text come first in a batch and share the null condition. Either they have no row in `text`,
    or `dropped` says which rows of `text` nobody is to see.
    """

    null: Tensor | None
    """[1, N, D]: the null condition, where some row needs it."""
    text: Tensor | None
    """[B', T, D]: the texts of the last B' rows of the batch."""
    mask: Tensor | None
    """[B', 1, 1, T] bool: True at a token, False at padding. None: no padding."""
    dropped: Tensor | None = None
    """[C, 1, 1] bool, with B' = B: True at those of the first C rows that take the null condition instead.

    How many rows lose their text is then a value and not a shape, so that one CUDA graph serves every batch.
    """

    @property
    def has_null(self) -> bool:
        """Whether some row may need the null condition."""
        return self.null is not None

    def last(self, rows: int) -> TextContext:
        """The texts of the last `rows` alone, all of which have one."""
        assert self.text is not None
        return TextContext(None, self.text[-rows:], None if self.mask is None else self.mask[-rows:])


class KeysValues(NamedTuple):
    """One cross-attention's keys and values of a `TextContext`. They do not depend on the timestep."""

    null: tuple[Tensor, Tensor] | None
    """Each [1, H, N, C]."""
    text: tuple[Tensor, Tensor] | None
    """Each [B', H, T, C]."""
    mask: Tensor | None
    """[B', 1, 1, T]"""
    dropped: Tensor | None = None
    """[C, 1, 1]"""

    def last(self, rows: int) -> KeysValues:
        """Those of the last `rows` texts alone."""
        assert self.text is not None
        keys, values = self.text
        return KeysValues(None, (keys[-rows:], values[-rows:]), None if self.mask is None else self.mask[-rows:])

    def repeat(self, times: int) -> KeysValues:
        """Every text `times` times in a row. The shared null condition needs no copies."""
        text, mask = self.text, self.mask
        if text is not None:
            text = text[0].repeat_interleave(times, dim=0), text[1].repeat_interleave(times, dim=0)
        return self._replace(text=text, mask=None if mask is None else mask.repeat_interleave(times, dim=0))


BlockTexts = Sequence[KeysValues]
"""Keys and values of the texts, one for each block."""
