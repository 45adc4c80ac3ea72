"""Search requests, checked before any model sees them. Every error is one sentence for the user."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.app.search.galleries import SIDE
from pipeline.app.search.reference import RequestError
from pipeline.app.search.steering import NO_STEERING, Steering
from pipeline.artifacts.decoding import ImageError, decode_file
from pipeline.artifacts.texts import clean_text
from pipeline.query.interface import Controls
from pipeline.retrieval import Query

MAX_TEXT = 1_000
"""Largest number of characters of a modification, a negative text or a shared concept."""
MAX_TOP = 200
"""Largest number of results."""
IMAGE_ONLY = "image_only"
"""The method that needs no modification."""
REFERENCE = "reference"
"""The id of a request's reference image in its query."""


@dataclass(frozen=True)
class Request:
    """One search.

    Raises:
        RequestError: When there is no image, or a text or a number is out of range.
    """

    image: Image.Image
    """The reference, RGB."""
    text: str
    """The modification."""
    method: str = "fusion_diff"
    top: int = 10
    """The number of results."""
    concept: str = ""
    """What the reference and the target have in common, if the user says so. Fusion-Diff's prompt names it."""
    exclude: str | None = None
    """The reference's own id, where it is one of the gallery's images: it is no result, and needs not be embedded."""
    controls: Controls = field(default_factory=Controls)
    steering: Steering = NO_STEERING
    """Further references, and answers that were judged."""
    where: str = ""
    """A filter on metadata, which results must pass; see `pipeline.retrieval.filters`."""
    rerank: int = 0
    """K: a multimodal LLM verifies the first K answers and orders them anew; 0: none."""

    def __post_init__(self) -> None:
        if not isinstance(self.image, Image.Image):
            raise RequestError("no reference image; choose one first")
        check_text("modification", self.text, needed=self.method != IMAGE_ONLY)
        check_text("negative text", self.controls.negative, needed=False)
        check_text("shared concept", self.concept, needed=False)
        if not 1 <= self.top <= MAX_TOP:
            raise RequestError(f"top: {self.top} is not between 1 and {MAX_TOP}")
        if not 0 <= self.rerank <= MAX_TOP:
            raise RequestError(f"rerank: {self.rerank} is not between 0 and {MAX_TOP}")
        if self.steering.references and self.controls.region is not None:
            raise RequestError("region: it marks a place in one reference, and there are several")

    def query(self, image: Image.Image | None = None, reference_id: str = REFERENCE) -> Query:
        """The query that the methods answer. Its id, and so its noise, depends on the image and the text alone.

        Args:
            image: Another reference in the place of the first one.
            reference_id: What the image is called among those of all queries.
        """
        image, text = image or self.image, clean_text(self.text)
        digest = hashlib.sha256(image.tobytes() + f"{image.size}\n{text}".encode()).hexdigest()[:16]
        return Query(digest, reference_id, (text,), (), shared_concept=clean_text(self.concept))

    @property
    def depth(self) -> int:
        """How many answers the search needs: all that are shown, and all that are verified."""
        return max(self.top, self.rerank)

    @property
    def left_out(self) -> frozenset[str]:
        """Ids of the gallery that must not be results."""
        return self.steering.left_out | ({self.exclude} if self.exclude is not None else set())


def check_text(name: str, text: str, needed: bool = True) -> None:
    """Raise RequestError for a text that is needed and empty, or too long."""
    if needed and not clean_text(text):
        raise RequestError(f"the {name} is empty; say in a few words what should be different")
    if len(text) > MAX_TEXT:
        raise RequestError(f"the {name} has {len(text):,} characters, at most {MAX_TEXT:,} are taken")


def read_region(given: str, size: tuple[int, int]) -> Image.Image:
    """Read the region of the reference that may change.

    Args:
        given: A box `x0,y0,x1,y1` as fractions of width and height, or the file of a mask that is bright inside.
        size: Width and height of the reference in pixels.

    Returns:
        An image of this size, mode L, 255 inside the region.

    Raises:
        RequestError: When it is neither, the mask has other proportions, or the region is empty.
    """
    if Path(given).suffix and os.path.isfile(given):  # which takes any name: Path.is_file raises for long ones
        return _read_mask(given, size)
    return _read_box(given, size)


def _read_mask(path: str, size: tuple[int, int]) -> Image.Image:
    try:
        return region_of_image(decode_file(path, SIDE), size)
    except (ImageError, RequestError) as error:
        raise RequestError(f"region {path}: {error}") from None


def _read_box(given: str, size: tuple[int, int]) -> Image.Image:
    try:
        left, top, right, bottom = (float(part) for part in given.split(","))
    except ValueError:
        raise RequestError(f"region {given!r}: neither x0,y0,x1,y1 nor an image file") from None
    return region_of_box((left, top, right, bottom), size)


def region_of_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image that is bright where the reference may change, as a region.

    Args:
        image: The mask, with the reference's proportions.
        size: Width and height of the reference in pixels.

    Returns:
        An image of this size, mode L, 255 inside the region.

    Raises:
        RequestError: It has other proportions, or nothing is marked.
    """
    mask = image.convert("L")
    if abs(mask.width * size[1] - mask.height * size[0]) > 0.02 * mask.width * size[1]:
        raise RequestError(f"its shape, {mask.width} x {mask.height}, is not the reference's, {size[0]} x {size[1]}")
    return region_of_mask(np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > 127)


def region_of_box(box: tuple[float, float, float, float], size: tuple[int, int]) -> Image.Image:
    """A box as a region.

    Args:
        box: x0, y0, x1, y1 as fractions of width and height.
        size: Width and height of the reference in pixels.

    Returns:
        An image of this size, mode L, 255 inside the region.

    Raises:
        RequestError: When it is no box within the image.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        given = ",".join(f"{value:g}" for value in box)
        raise RequestError(f"region {given!r}: needs 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
    region = Image.new("L", size, 0)
    pixels = [
        left * size[0],
        top * size[1],
        max(left * size[0], right * size[0] - 1),
        max(top * size[1], bottom * size[1] - 1),
    ]
    ImageDraw.Draw(region).rectangle(pixels, fill=255)
    return region


def region_of_mask(mask: np.ndarray) -> Image.Image:
    """A mask as a region.

    Args:
        mask: bool [H, W], true where the reference may change.

    Returns:
        An image in mode L, 255 where the mask is true.

    Raises:
        RequestError: When nothing is marked.
    """
    if not mask.any():
        raise RequestError("the region is empty; paint over what should change, or leave it out")
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
