"""The rows of an encoding job: what a reader yields, and how a row becomes an input of f_M."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.artifacts import decoding
from pipeline.artifacts.decoding import ImageError, Treatment
from pipeline.encoders.mllm.interface import MllmInput

RowKey = tuple[bytes, Treatment, str, bool]
"""A hash of the image (empty without one), how it is decoded, the text, and whether it searches."""


class EncodingError(ValueError):
    """A row that cannot be encoded, named, or too many of them."""


class UnreadableRowError(ValueError):
    """Why one row cannot be encoded. The job decides what follows from it."""


@dataclass(frozen=True)
class EncoderRow:
    """One input as plain data, not decoded yet."""

    id: str
    text: str = ""
    image: bytes | None = None
    """An encoded image; None: text alone."""
    image_id: str = ""
    note: Any = None
    """What a job's own `decode` wants to know besides."""
    treatment: Treatment = "shown"
    """How the image is decoded."""
    is_query: bool = False
    """Whether it searches; see `MllmInput`."""

    @property
    def key(self) -> RowKey:
        """Equal for rows whose inputs are equal."""
        image = b"" if self.image is None else hashlib.blake2b(self.image, digest_size=16).digest()
        return image, self.treatment, self.text, self.is_query


class Reader(Protocol):
    """Rows in an order that is always the same."""

    def __len__(self) -> int:
        """The number of rows."""

    def rows(self, start: int) -> Iterator[EncoderRow]:
        """The rows from number `start` on, in order. May be called again and again."""


def decode(row: EncoderRow, max_side: int = 0) -> MllmInput:
    """Decode a row.

    Args:
        row: An image, a text, or both.
        max_side: Larger images are reduced to it; see `MllmParams`.

    Returns:
        What f_M sees.

    Raises:
        UnreadableRowError: The row has neither, or its image cannot be decoded.
    """
    if row.image is None:
        if not row.text:
            raise UnreadableRowError("there is neither an image nor a text")
        return MllmInput(row.text, is_query=row.is_query)
    try:
        return MllmInput(row.text, decoding.decode(row.image, max_side, row.treatment), row.is_query)
    except ImageError as error:
        raise UnreadableRowError(str(error)) from None
