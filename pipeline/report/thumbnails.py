"""The images that a report shows, small and inlined."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.artifacts.decoding import ImageError, Treatment, decode
from pipeline.artifacts.images import EncodedImages, image_columns, treatment_of

THUMBNAIL = 96
"""Width and height of the figures' images."""
SMALL, QUALITY = 64, 80
"""The same of the page's images, of which there are thousands, and how well they are kept."""


def load_images(images: Path, wanted: Iterable[str], side: int = THUMBNAIL) -> dict[str, Image.Image]:
    """The wanted rows of an `images` shard set as RGBA, at most `side` wide and high.

    Raises ArtifactError naming an image that is missing or cannot be decoded.
    """
    missing = set(wanted)
    found: dict[str, Image.Image] = {}
    shards = ShardSet.open(images)
    for table in shards.shards(image_columns(shards)):
        encoded = EncodedImages(table)
        for position, name in enumerate(table["image_id"].to_pylist()):
            if name in missing:
                found[name] = _decoded(encoded[position], f"{images}: image {name!r}", side, treatment_of(shards))
                missing.discard(name)
    if missing:
        raise ArtifactError(f"{images}: {len(missing)} images are missing, the first is {min(missing)!r}")
    return found


def webp(image: Image.Image) -> bytes:
    """The image as WebP: an emoji takes under a kilobyte, and hardly a difference is seen at this size."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=QUALITY)
    return buffer.getvalue()


def png_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _decoded(content: bytes, what: str, side: int, treatment: Treatment) -> Image.Image:
    try:
        image = decode(content, treatment=treatment).convert("RGBA")
    except ImageError as error:
        raise ArtifactError(f"{what}: {error}") from None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image
