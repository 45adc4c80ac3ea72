"""The pictures that a report shows, small and as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.artifacts.images import EncodedImages, image_columns

THUMBNAIL = 96
"""Pictures are shown at most this wide and high."""


def load_pictures(images: Path, wanted: Iterable[str]) -> dict[str, Image.Image]:
    """The wanted rows of an `images` shard set as RGBA, no larger than a thumbnail.

    Raises ArtifactError naming a picture that is missing or cannot be decoded.
    """
    missing, pictures = set(wanted), {}
    shards = ShardSet.open(images)
    for table in shards.shards(image_columns(shards)):
        encoded = EncodedImages(table)
        for position, name in enumerate(table["image_id"].to_pylist()):
            if name in missing:
                pictures[name] = _decoded(encoded[position], f"{images}: image {name!r}")
                missing.discard(name)
    if missing:
        raise ArtifactError(f"{images}: {len(missing)} pictures are missing, the first is {min(missing)!r}")
    return pictures


def data_uri(picture: Image.Image) -> str:
    """The picture inline, as PNG of 256 colours: two thirds of the bytes, and hardly a difference at this size."""
    buffer = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(buffer, format="PNG")
    return png_uri(buffer.getvalue())


def png_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _decoded(content: bytes, what: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(content)).convert("RGBA")
    except (UnidentifiedImageError, OSError, TypeError) as error:
        raise ArtifactError(f"{what} cannot be decoded ({error})") from None
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return picture
