"""What was sent -> a checked search. Everything that is decoded here is bounded before."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from pipeline.app.search import steering
from pipeline.app.search.galleries import SIDE, FolderGallery, Gallery
from pipeline.app.search.requests import IMAGE_ONLY, Request, region_of_box, region_of_image
from pipeline.app.search.searcher import Searcher
from pipeline.app.service import models
from pipeline.app.service.problems import ServiceError, invalid, unknown_id
from pipeline.artifacts import ArtifactError
from pipeline.artifacts.decoding import ImageError, decode
from pipeline.artifacts.texts import clean_text
from pipeline.query.interface import Controls

TEXT_ONLY = "text_only"
"""The method that needs no reference."""


@dataclass(frozen=True)
class _Opened:
    """A reference image that has been read."""

    image: Image.Image
    weight: float
    image_id: str | None


def to_request(
    sent: models.Search, searcher: Searcher, uploads: Sequence[bytes] = (), needs_reference: bool = False
) -> Request:
    """A search as the searcher takes it.

    Args:
        sent: What was sent.
        searcher: Holds the gallery and the methods.
        uploads: Image files that came beside it: the first references, with weight 1.
        needs_reference: Whether a reference is needed where the method looks at the text alone.

    Returns:
        The request, its images decoded.

    Raises:
        ServiceError: An id is unknown, or an image is no image; names the field.
        RequestError, ControlError, FilterError: A value is out of its range.
    """
    is_text_alone = not (uploads or sent.references)
    method = method_of(sent.method or _enough(is_text_alone, not clean_text(sent.text), searcher), searcher)
    judged = {"liked": sent.liked, "disliked": sent.disliked}
    for field, ids in judged.items():
        for image_id in ids:
            check_id(field, image_id, searcher)
    searcher.gallery.check_filter(sent.filter)
    opened = [_Opened(decoded("image", upload), 1.0, None) for upload in uploads]
    if is_text_alone and method == TEXT_ONLY and not needs_reference:
        opened = [_Opened(Image.new("RGB", (64, 64), "white"), 1.0, None)]  # which the method does not look at
    opened += [_open(f"references.{number}", one, searcher) for number, one in enumerate(sent.references)]
    first = next((one for one in opened if one.weight > 0), None)
    if first is None:
        raise invalid("references: at least one with a weight above 0 is needed")
    others = tuple(
        steering.Reference(one.image, one.weight / first.weight, one.image_id) for one in opened if one is not first
    )
    return Request(
        first.image,
        sent.text,
        method,
        sent.top,
        concept=sent.concept,
        exclude=first.image_id,
        controls=_controls(sent, first.image.size),
        steering=steering.Steering(
            others, tuple(sent.liked), tuple(sent.disliked), sent.liked_weight, sent.disliked_weight
        ),
        where=sent.filter,
        rerank=sent.rerank,
    )


def _enough(is_text_alone: bool, is_image_alone: bool, searcher: Searcher) -> str | None:
    """The method that needs no more than a text, or an image; None: whatever the gallery's own one is."""
    if is_text_alone == is_image_alone:
        return None
    wanted = TEXT_ONLY if is_text_alone else IMAGE_ONLY
    return wanted if wanted in searcher.methods else None


def method_of(name: str | None, searcher: Searcher) -> str:
    """A method that can be searched with; the gallery's own one, or the first, where none is named."""
    there = searcher.methods
    if name is None:
        default = searcher.gallery.default_method
        return default if default in there else there[0]
    if name not in there:
        raise invalid(f"method: {name!r} is not one of {', '.join(there)}")
    return name


def check_id(field: str, image_id: str, searcher: Searcher) -> None:
    """Raise ServiceError for an id that the gallery does not have."""
    if image_id not in searcher.gallery:
        raise unknown_id(field, image_id)


def gallery_image(field: str, image_id: str, searcher: Searcher) -> Image.Image:
    """An image of the gallery. Raises ServiceError where there is none, or its file is gone."""
    check_id(field, image_id, searcher)
    try:
        return searcher.gallery.image(image_id)
    except ArtifactError:
        gone = f"{field}: the file of {image_id[:100]!r} is gone or damaged since it was indexed"
        raise ServiceError(410, "gone", gone) from None


def decoded(field: str, content: bytes) -> Image.Image:
    """An uploaded file as an image. Raises ServiceError naming the field."""
    try:
        return decode(content, SIDE)
    except ImageError as error:
        raise invalid(f"{field}: {error}") from None


def from_base64(field: str, text: str) -> bytes:
    """The bytes of a text in base64. Raises ServiceError for another one, an address among them."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"{field}: it is no image file in base64; addresses are not fetched") from None


def _open(field: str, sent: models.Reference, searcher: Searcher) -> _Opened:
    if (sent.id is None) == (sent.image is None):
        raise invalid(f"{field}: either id or image is needed, and not both")
    if sent.image is not None:
        field = f"{field}.image"
        return _Opened(decoded(field, from_base64(field, sent.image)), sent.weight, None)
    assert sent.id is not None
    return _Opened(gallery_image(f"{field}.id", sent.id, searcher), sent.weight, sent.id)


def _controls(sent: models.Search, size: tuple[int, int]) -> Controls:
    region = None
    if sent.region is not None and sent.mask is not None:
        raise invalid("region, mask: one of them says what may change, not both")
    if sent.region is not None:
        region = region_of_box(sent.region, size)
    if sent.mask is not None:
        region = region_of_image(decoded("mask", from_base64("mask", sent.mask)), size)
    return Controls(
        sent.negative.strip(),
        sent.negative_weight,
        region,
        sent.guidance_scale,
        sent.control_scale,
        sent.hypotheses,
    )


def selected(where: str, gallery: Gallery) -> list[str]:
    """The ids that a filter allows, in the gallery's order. Raises FilterError where it cannot be read."""
    if not where:
        return gallery.ids
    gallery.check_filter(where)
    return gallery.library.select(where) if isinstance(gallery, FolderGallery) else []


@contextmanager
def numbered(place: str) -> Iterator[None]:
    """Put the place before the errors of a block."""
    try:
        yield
    except ServiceError as error:
        raise ServiceError(error.status, error.code, f"{place}: {error}") from None
