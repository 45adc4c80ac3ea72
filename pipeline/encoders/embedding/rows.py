"""The rows of an encoding job: what a reader yields, and how a row becomes an input of f_M."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pipeline.artifacts.images import MAX_PIXELS, ImageError, open_image
from pipeline.encoders.mllm.interface import MllmInput

LARGE_JPEG_SIDE = int(MAX_PIXELS**0.5) // 2
"""Only a JPEG of more than MAX_PIXELS can be halved and still have sides of this length."""
MAX_ASPECT = 200
"""Qwen2.5-VL's processor takes nothing longer than this many times its width."""


RowKey = tuple[bytes, str]
"""A hash of the image, and the text."""


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

    @property
    def key(self) -> RowKey:
        """Equal for rows whose inputs are equal."""
        return hashlib.blake2b(self.image or b"", digest_size=16).digest(), self.text


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
        max_side: Larger images are reduced to it; see `EncoderParams`.

    Returns:
        What f_M sees.

    Raises:
        UnreadableRowError: The row has neither, or its image cannot be decoded.
    """
    if row.image is None:
        if not row.text:
            raise UnreadableRowError("there is neither an image nor a text")
        return MllmInput(row.text)
    if not row.image:
        raise UnreadableRowError("the image has no bytes")
    try:
        return MllmInput(row.text, _image(row.image, max_side))
    except ImageError as error:
        raise UnreadableRowError(str(error)) from None


def _image(encoded: bytes, max_side: int) -> Image.Image:
    """The first frame as RGB. Sizes are known from the header, before anything is decoded."""
    with open_image(encoded, MAX_PIXELS, max_side or LARGE_JPEG_SIDE) as image:
        if max(image.size) >= MAX_ASPECT * min(image.size):
            size = f"{image.width} x {image.height}"
            raise ImageError(f"the image has {size} pixels: one side is {MAX_ASPECT} times the other or more")
        if image.mode.startswith("I;16") or image.mode == "I":  # Pillow's own conversion would cut all above 255
            image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        image = image.convert("RGB")
        if max_side and max(image.size) > max_side:
            image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
        return image
