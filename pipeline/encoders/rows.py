"""The rows of an encoding job: what a reader yields, and how a row becomes an input."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pipeline.encoders.mllm import MllmInput

MAX_PIXELS = 64_000_000
"""What is decoded of a picture at most; a larger JPEG is decoded at a half, a quarter or an eighth of its size."""
MAX_ASPECT = 200
"""Qwen2.5-VL's processor takes nothing longer than this many times its width."""


class UnreadableRow(ValueError):
    """Why one row cannot be encoded; the job decides what follows from it."""


@dataclass(frozen=True)
class EncoderRow:
    """One input as plain data, not decoded yet."""

    id: str
    text: str = ""
    image: bytes | None = None
    """An encoded picture; None: text alone."""
    image_id: str = ""
    note: Any = None
    """What the writer wants to know besides."""

    @property
    def key(self) -> tuple[bytes, str]:
        """Equal for rows whose inputs are equal."""
        return hashlib.blake2b(self.image or b"", digest_size=16).digest(), self.text


class Reader(Protocol):
    """Rows in an order that is always the same."""

    def __len__(self) -> int:
        """Number of rows."""

    def rows(self, start: int) -> Iterator[EncoderRow]:
        """The rows from number `start` on."""


def decode(row: EncoderRow, max_side: int = 0) -> MllmInput:
    """What f_M sees of a row; max_side: see `EncoderParams`. Raises UnreadableRow with the reason."""
    if row.image is None:
        if not row.text:
            raise UnreadableRow("there is neither an image nor a text")
        return MllmInput(row.text)
    if not row.image:
        raise UnreadableRow("the image has no bytes")
    try:
        return MllmInput(row.text, _picture(row.image, max_side))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UnreadableRow):
            raise
        reason = "it is in no known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise UnreadableRow(f"the image cannot be decoded: {reason}") from None


def _picture(encoded: bytes, max_side: int) -> Image.Image:
    """The first frame as RGB. Sizes are known from the header, before anything is decoded."""
    image = Image.open(io.BytesIO(encoded))
    size = f"{image.width} x {image.height}"
    if max(image.size) >= MAX_ASPECT * min(image.size):
        raise UnreadableRow(f"the image has {size} pixels: one side is {MAX_ASPECT} times the other or more")
    if image.format == "JPEG" and (max_side or image.width * image.height > MAX_PIXELS):
        shorter = max_side or int(MAX_PIXELS**0.5) // 2
        image.draft("RGB" if image.mode == "RGB" else None, (shorter, shorter))  # whole steps of the JPEG, at least so large
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableRow(f"the image has {size} pixels, at most {MAX_PIXELS} are decoded")
    if image.mode.startswith("I;16") or image.mode == "I":  # Pillow's own conversion would cut all above 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    image = image.convert("RGB")
    if max_side and max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return image
