"""What the readers of this folder yield."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.artifacts.archives import Place
from pipeline.artifacts.decoding import ImageError, measure


@dataclass(frozen=True)
class Sample:
    """An image and its captions, or why there is none."""

    image_id: str
    content: bytes = b""
    """The encoded image."""
    captions: tuple[str, ...] = ()
    """None: the captioning model writes one. Each of several makes a pair of its own."""
    reason: str = ""
    """Why the sample cannot be used; empty: it can."""
    is_image: bool = True
    """Whether an image is lost with it. What is not one is listed, and does not count as a rejected image."""
    place: Place | None = None
    """Where the encoded image lies as it is; None: nowhere, as in a compressed archive."""


def checked(sample: Sample) -> tuple[Sample, tuple[int, int]]:
    """The sample and its image's width and height, both from the header alone; 0 for one that is rejected.

    An image that breaks off later is found when it is encoded (`rejected.parquet` of that stage).
    """
    if not sample.reason and not sample.content:
        sample = Sample(sample.image_id, reason="the image has no bytes")
    if sample.reason:
        return sample, (0, 0)
    try:
        return sample, measure(sample.content)
    except ImageError as error:
        return Sample(sample.image_id, reason=str(error)), (0, 0)
