"""Images as people have them - any size, mode and orientation, or no image at all - made what models take."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pipeline.artifacts.images import FORMATS, MAX_SCANS, count_scans

MAX_BYTES = 256_000_000
MAX_QUERY_PIXELS = 40_000_000
"""A reference may have so many; a gallery's images `pipeline.encoders.embedding.job.MAX_PIXELS`."""
MAX_ASPECT = 100
"""Longer strips than this are refused: no encoder here sees anything in them."""
SIDE = 1024
"""Images are reduced to this longer side as they are read, so that a batch of them has a bounded size."""


class UserImageError(ValueError):
    """Why something is no usable image, in words for the person who brought it."""


def read_user_image(source: bytes | str | Path, max_pixels: int = MAX_QUERY_PIXELS, side: int = SIDE) -> Image.Image:
    """Decode the first frame: RGB on a white ground, upright, at most `side` long.

    Sizes are judged by the header, before anything is decoded. Raises UserImageError saying what is wrong.
    """
    encoded = source if isinstance(source, bytes) else read_bytes(Path(source))
    if not encoded:
        raise UserImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            _check_size(*image.size, max_pixels)
            if image.format == "JPEG" and count_scans(encoded) > MAX_SCANS:
                raise UserImageError(f"the image has {count_scans(encoded)} scans, at most {MAX_SCANS} are decoded")
            image.draft("RGB", (side, side))  # a JPEG is decoded at about the size that is needed
            return _reduced(image, side)
    except UserImageError:
        raise
    except Image.UnidentifiedImageError:
        raise UserImageError(f"it is no image in a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise UserImageError(
            f"the image is far too large; at most {max_pixels / 1e6:.0f} megapixels are taken"
        ) from None
    except Exception as error:  # a decoder may stumble over damaged bytes in any way
        raise UserImageError(f"the image is damaged: {error or type(error).__name__}") from None


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises UserImageError when there is no readable file of a sane size."""
    if not path.is_file():
        raise UserImageError("there is no such file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserImageError(
                f"the file has {path.stat().st_size / 1e6:.0f} MB, at most {MAX_BYTES / 1e6:.0f} are read"
            )
        return path.read_bytes()
    except OSError as error:
        raise UserImageError(f"the file cannot be read: {error.strerror}") from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        megapixels = f"{width} x {height} pixels ({width * height / 1e6:.1f} megapixels)"
        raise UserImageError(f"the image has {megapixels}, at most {max_pixels / 1e6:.0f} megapixels are taken")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UserImageError(f"the image has {width} x {height} pixels: more than {MAX_ASPECT} times longer than wide")


def _reduced(image: Image.Image, side: int) -> Image.Image:
    orientation = image.getexif().get(0x0112, 1)
    if image.mode.startswith("I;16"):  # Pillow would cut 16 bits off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    image.getexif()[0x0112] = orientation
    return ImageOps.exif_transpose(image)
