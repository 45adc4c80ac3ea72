"""Images as users have them, of any size, mode and orientation, made what models take.

A file that is no image, or no usable one, is rejected with a sentence for the user.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pipeline.artifacts.images import FORMATS, MAX_SCANS, count_scans

MAX_BYTES = 256_000_000
"""Largest file that is read."""
MAX_QUERY_PIXELS = 40_000_000
"""Largest reference. For a gallery's images it is `pipeline.encoders.embedding.job.MAX_PIXELS`."""
MAX_ASPECT = 100
"""Longer side : shorter side. Longer strips are rejected: no encoder here sees anything in them."""
SIDE = 1024
"""Longer side, in pixels, to which images are reduced as they are read, so that a batch has a bounded size."""


class UserImageError(ValueError):
    """Why something is not a usable image, in words for the user."""


def read_user_image(source: bytes | str | Path, max_pixels: int = MAX_QUERY_PIXELS, side: int = SIDE) -> Image.Image:
    """Decode the first frame of an image: upright, RGB, transparency on white.

    The header's size is checked before anything is decoded.

    Args:
        source: The encoded image, or its file.
        max_pixels: Largest width x height.
        side: Longer side of the result in pixels, at most. Smaller images keep their size.

    Returns:
        The image.

    Raises:
        UserImageError: When the file cannot be read, is no image, or is too large or damaged.
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
    """Read a file.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        UserImageError: When there is no such file, it has more than `MAX_BYTES`, or it cannot be read.
    """
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
