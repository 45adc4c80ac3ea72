"""Images to encode, encoders of every format, and what came back of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.artifacts.decoding import decode

try:
    import pillow_heif
except ImportError:
    pillow_heif = None

LOSSY = {"JPEG": 4.0, "WEBP": 4.0, "AVIF": 4.0, "HEIC": 4.0}
"""Mean difference in levels that each lossy format may leave."""
SIZES = ((48, 32), (32, 48), (61, 37))
needs_heif = pytest.mark.skipif(pillow_heif is None, reason="pillow-heif is not installed")


def scene(width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3]: smooth, and different in every corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = rows * 200 // height, columns * 200 // width
    blue = np.where((rows < height // 3) & (columns < width // 3), 220, 30)
    return np.stack([red + 20, green + 40, blue], -1).astype(np.uint8)


def grey_scene(width: int, height: int) -> np.ndarray:
    """uint8 [H, W]"""
    return scene(width, height)[..., 1]


def lying(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores upright pixels under an EXIF orientation, after the table of the EXIF standard."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    return pixels


def encode(image: Image.Image, kind: str, orientation: int = 1, **options) -> bytes:
    buffer = io.BytesIO()
    if orientation != 1 or kind == "TIFF":
        exif = Image.Exif()
        exif[0x0112] = orientation
        options |= {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif.tobytes()}
    if kind == "HEIC":
        heif = pillow_heif.from_pillow(image)
        heif.save(buffer, quality=95, **options)
        return buffer.getvalue()
    options |= {"quality": 95} if kind in LOSSY else {}
    options |= {"subsampling": 0} if kind == "JPEG" else {}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def difference(content: bytes, expected: np.ndarray, **options) -> float:
    """Mean difference in levels."""
    found = decode(content, **options)
    assert found.mode == "RGB" and not found.info
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, -1)
    assert (found.height, found.width) == expected.shape[:2]
    return float(np.abs(np.asarray(found).astype(int) - expected).mean())
