"""What a person asks, checked before any model sees it. Every refusal is one sentence for that person."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.app.search.user_images import UserImageError, read_user_image
from pipeline.query.interface import Controls
from pipeline.retrieval import Query

MAX_TEXT = 1_000
"""Characters of a modification, a negative text or a shared concept."""
MAX_TOP = 200
REFERENCE = "reference"
"""The id under which a request's own image is composed."""


class RequestError(ValueError):
    """What is wrong with a request."""


@dataclass(frozen=True)
class Request:
    """One search. Raises RequestError for a text or a number that cannot be used."""

    image: Image.Image
    """The reference, RGB."""
    text: str
    """What is to change."""
    method: str = "fusion_diff"
    top: int = 10
    concept: str = ""
    """What reference and target have in common, where the person says so; Fusion-Diff's prompt names it."""
    exclude: str | None = None
    """A gallery image that must not be an answer: the reference itself."""
    controls: Controls = field(default_factory=Controls)

    def __post_init__(self) -> None:
        if not isinstance(self.image, Image.Image):
            raise RequestError("no reference image; choose one first")
        check_text("modification", self.text)
        check_text("negative text", self.controls.negative, needed=False)
        check_text("shared concept", self.concept, needed=False)
        if not 1 <= self.top <= MAX_TOP:
            raise RequestError(f"top: {self.top} is not between 1 and {MAX_TOP}")

    def query(self) -> Query:
        """As the methods see it. Its id, hence its noise, comes from the image and the words alone."""
        digest = hashlib.sha256(self.image.tobytes() + f"{self.image.size}\n{self.text}".encode()).hexdigest()[:16]
        return Query(digest, REFERENCE, (self.text.strip(),), (), shared_concept=self.concept.strip())


def check_text(name: str, text: str, needed: bool = True) -> None:
    """Raises RequestError for an empty text that is needed, and for one that is too long."""
    if needed and not text.strip():
        raise RequestError(f"the {name} is empty; say in a few words what should be different")
    if len(text) > MAX_TEXT:
        raise RequestError(f"the {name} has {len(text):,} characters, at most {MAX_TEXT:,} are taken")


def read_region(given: str, size: tuple[int, int]) -> Image.Image:
    """`x0,y0,x1,y1` in shares of width and height, or an image that is bright where the reference is to change.

    size: the reference's (width, height). Returns mode L, 255 where painted. Raises RequestError.
    """
    if Path(given).suffix and Path(given).is_file():
        try:
            mask = read_user_image(given).convert("L")
        except UserImageError as error:
            raise RequestError(f"region {given}: {error}") from None
        if abs(mask.width * size[1] - mask.height * size[0]) > 0.02 * mask.width * size[1]:
            raise RequestError(
                f"region {given}: its shape, {mask.width} x {mask.height}, "
                f"is not the reference's, {size[0]} x {size[1]}"
            )
        return painted(np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > 127)
    try:
        left, top, right, bottom = (float(part) for part in given.split(","))
    except ValueError:
        raise RequestError(f"region {given!r}: neither x0,y0,x1,y1 nor an image file") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise RequestError(f"region {given!r}: needs 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
    region = Image.new("L", size, 0)
    box = [
        left * size[0],
        top * size[1],
        max(left * size[0], right * size[0] - 1),
        max(top * size[1], bottom * size[1] - 1),
    ]
    ImageDraw.Draw(region).rectangle(box, fill=255)
    return region


def painted(mask: np.ndarray) -> Image.Image:
    """bool [H, W] -> a region. Raises RequestError when nothing is painted."""
    if not mask.any():
        raise RequestError("the region is empty; paint over what should change, or leave it out")
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
