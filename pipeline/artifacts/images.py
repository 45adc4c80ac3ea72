"""Encoded images: of an images table, which holds them (`schemas.IMAGES`) or names their files (`schemas.IMAGE_FILES`); and decoding.

Whatever is decoded here goes through `open_image`: raster formats that Pillow reads by itself, and no
more pixels than are asked for. What decoding takes is bounded by that, not by a clock, so that the
same image is refused on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from PIL import Image

from pipeline.artifacts.atomic import ArtifactError
from pipeline.artifacts.shards import ShardSet

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""None of them starts another program, as EPS would."""
MAX_PIXELS = 64_000_000
MAX_SCANS = 100
"""A progressive JPEG may go over all of its pixels so often: encoders write about ten scans."""


class ImageError(ValueError):
    """Why an image cannot be decoded."""


@contextmanager
def open_image(content: bytes, max_pixels: int = MAX_PIXELS, jpeg_side: int = 0) -> Iterator[Image.Image]:
    """An image whose header has been judged and whose pixels are decoded when they are asked for, within the block.

    jpeg_side: a JPEG is decoded at the least of a whole, a half, a quarter or an eighth of its size that is
    no shorter than this on either side. Raises ImageError for what is no image, too large, or damaged,
    whatever Pillow says of it.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.format == "JPEG" and jpeg_side:
                image.draft("RGB" if image.mode == "RGB" else None, (jpeg_side, jpeg_side))
            if image.width * image.height > max_pixels:
                raise ImageError(
                    f"the image has {image.width} x {image.height} pixels, at most {max_pixels} are decoded"
                )
            if image.format == "JPEG" and count_scans(content) > MAX_SCANS:
                raise ImageError(f"the image has {count_scans(content)} scans, at most {MAX_SCANS} are decoded")
            yield image
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError("the image cannot be decoded: it is in no known format") from None
    except Image.DecompressionBombError:
        raise ImageError(f"the image has far more pixels than the {max_pixels} that are decoded") from None
    except Exception as error:  # a decoder may stumble over damaged bytes in any way
        raise ImageError(f"the image cannot be decoded: {error or type(error).__name__}") from None


def count_scans(jpeg: bytes) -> int:
    """How often a JPEG goes over its pixels: within its data, the marker's first byte never stands before the second."""
    return jpeg.count(b"\xff\xda")


def decode_image(content: bytes, mode: str = "RGB", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An image's first frame in `mode`. Raises ImageError."""
    with open_image(content, max_pixels) as image:
        return image.convert(mode)


def image_columns(images: ShardSet) -> list[str]:
    """The columns that `EncodedImages` needs of this table, the ids in front."""
    return ["image_id", "bytes"] if "bytes" in images.columns else ["image_id", "path", "crop"]


class EncodedImages:
    """A table's images by row, read when asked for; b"" for a row without one.

    Raises ArtifactError naming a file that is gone.
    """

    def __init__(self, table: pa.Table):
        self._bytes = table["bytes"] if "bytes" in table.column_names else None
        self._files = None if self._bytes is not None else (table["path"], table["crop"])
        self._rows = table.num_rows

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[bytes]:
        return (self[row] for row in range(self._rows))

    def __getitem__(self, row: int) -> bytes:
        if self._bytes is not None:
            return self._bytes[row].as_py() or b""
        path, crop = Path(self._files[0][row].as_py()), self._files[1][row].as_py()
        if not path.is_file():
            raise ArtifactError(f"{path}: the image is gone since the stage prepare named it")
        content = path.read_bytes()
        return _cut_out(content, crop) if crop else content


def _cut_out(content: bytes, crop: list[int]) -> bytes:
    """The part of an image, in the middle of a black square, as PNG; what cannot be decoded stays as it is."""
    try:
        with open_image(content) as image:
            part = image.convert("RGB").crop(crop)
    except ImageError:
        return content
    side = max(part.size)
    square = Image.new("RGB", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    encoded = io.BytesIO()
    square.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()
