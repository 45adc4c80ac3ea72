"""One decoder for every image: training, galleries, references and the page see the same pixels.

Formats are told by content. An image is judged by its header before its pixels are decoded, so the work is bounded
by `Limits` and not by a clock: the same file is rejected on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.artifacts.image_formats import FORMATS, count_scans, sniff
from pipeline.artifacts.image_pixels import to_eight_bits, to_rgb

Treatment = Literal["shown", "stored"]
"""shown: as a viewer shows the image: upright, on white, in sRGB. stored: the samples as they lie in the file, without
orientation, transparency and colour profile. The published evaluations of the public benchmarks read images with
Pillow's `convert("RGB")`, which is the second."""


class ImageError(ValueError):
    """Why an image cannot be decoded, in words for the person who brought it."""


@dataclass(frozen=True)
class Limits:
    """What is decoded at most. A JPEG may be reduced while it is decoded; its pixels count after that."""

    bytes: int = 256_000_000
    """Of a file."""
    pixels: int = 64_000_000
    jpeg_pixels: int = 256_000_000
    """Of a JPEG before it is reduced: a progressive one needs memory for all of them."""
    aspect: int = 100
    """The longer side is at most so many times the shorter one. No encoder here sees anything in longer strips."""
    scans: int = 100
    """A progressive JPEG may go over all of its pixels so often. Encoders write about ten scans."""


LIMITS = Limits()

_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "AVIF": AvifImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "PPM": PpmImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
}
"""Classes instead of `Image.open`, which has a limit of its own and takes some JPEGs for another format."""
_REDUCTIONS = (1, 2, 4, 8)
"""What JPEG's decoder can divide both sides by."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the image upright."""
_TURNED_BY_DECODER = ("TIFF", "HEIF")


def decode(content: bytes, max_side: int = 0, treatment: Treatment = "shown", limits: Limits = LIMITS) -> Image.Image:
    """Decode an image's first frame.

    Args:
        content: An encoded image in one of `image_formats.FORMATS`.
        max_side: Reduce the image so that neither side is longer, in pixels; 0: keep its size. A JPEG of more than
            `limits.pixels` is reduced all the same.
        treatment: See `Treatment`.
        limits: What is decoded at most.

    Returns:
        An RGB image without metadata.

    Raises:
        ImageError: The content is no image, exceeds a limit, or is damaged.
    """
    with _opened(content, limits) as image:
        raw_mode = _load(image, _reduction(image.size, max_side, limits) if image.format == "JPEG" else 1)
        pixels = to_rgb(image, raw_mode) if treatment == "shown" else to_eight_bits(image).convert("RGB")
        if max_side and max(pixels.size) > max_side:
            pixels.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
        if treatment == "shown" and (turn := _TURNS.get(_orientation(image))) is not None:
            pixels = pixels.transpose(turn)
        pixels.info = {}
        return pixels


def decode_with_alpha(content: bytes, limits: Limits = LIMITS) -> Image.Image:
    """An image's first frame as RGBA, as it lies in the file: drawings that are laid over others.

    Raises:
        ImageError: As `decode`.
    """
    with _opened(content, limits) as image:
        raw_mode = _load(image, _reduction(image.size, 0, limits) if image.format == "JPEG" else 1)
        return to_eight_bits(image, raw_mode).convert("RGBA")


def decode_file(path: str | Path, max_side: int = 0, limits: Limits = LIMITS) -> Image.Image:
    """An image file of a person's own, as `decode` shows it.

    Raises:
        ImageError: As `read_image_file` and `decode`.
    """
    return decode(read_image_file(path, limits), max_side, limits=limits)


def measure(content: bytes, treatment: Treatment = "shown", limits: Limits = LIMITS) -> tuple[int, int]:
    """Width and height in pixels, from the header alone, of what `decode` makes without `max_side`.

    A JPEG that only decodes reduced has the size that its header says.

    Raises:
        ImageError: `decode` would reject the image, as far as its header tells.
    """
    with _opened(content, limits) as image:
        if treatment == "stored":
            return image.size
        in_header = image.format != "PNG" or "exif" in image.info  # else Pillow decodes the image to look behind it
        width, height = image.size
        return (height, width) if in_header and _orientation(image) >= 5 else (width, height)


def read_image_file(path: str | Path, limits: Limits = LIMITS) -> bytes:
    """The bytes of an image file, not decoded.

    Raises:
        ImageError: There is no such file, it cannot be read, or it has more than `limits.bytes`.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ImageError("there is no such file")
        _check_bytes(path.stat().st_size, limits)
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"the file cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise error if isinstance(error, ImageError) else ImageError("no file can have this name") from None


@contextmanager
def _opened(content: bytes, limits: Limits) -> Iterator[ImageFile]:
    """An image that has passed the limits, its pixels not decoded; whatever Pillow says becomes an ImageError."""
    _check_bytes(len(content), limits)
    opener = _opener(content)
    try:
        with opener(io.BytesIO(content)) as image:
            _check_size(image, content, limits)
            yield image
    except ImageError:
        raise
    except Exception as error:  # a decoder may stumble over damaged bytes in any way
        raise ImageError(f"the image cannot be decoded: {error or type(error).__name__}") from None


def _opener(content: bytes) -> Callable[[io.BytesIO], ImageFile]:
    kind = sniff(content)
    if kind == "HEIC":
        return _heic_opener()
    if kind not in _OPENERS:
        found = f"it is {kind}" if kind else f"it is in no known format ({', '.join(FORMATS)})"
        raise ImageError(f"the image cannot be decoded: {found}")
    return _OPENERS[kind]


def _heic_opener() -> Callable[[io.BytesIO], ImageFile]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageError("the image cannot be decoded: HEIC needs the package pillow-heif") from None
    return HeifImageFile


def _check_bytes(size: int, limits: Limits) -> None:
    if not size:
        raise ImageError("the image has no bytes")
    if size > limits.bytes:
        raise ImageError(f"the file has {size / 1e6:.0f} MB, at most {limits.bytes / 1e6:.0f} MB are read")


def _check_size(image: ImageFile, content: bytes, limits: Limits) -> None:
    width, height = image.size
    is_jpeg = image.format == "JPEG"
    at_most = min(limits.jpeg_pixels, limits.pixels * _REDUCTIONS[-1] ** 2) if is_jpeg else limits.pixels
    if width * height > at_most:
        raise ImageError(f"the image has {width} x {height} pixels, at most {at_most} are decoded")
    if max(width, height) > limits.aspect * min(width, height):
        raise ImageError(
            f"the image has {width} x {height} pixels: one side is more than {limits.aspect} times the other"
        )
    if is_jpeg and (scans := count_scans(content)) > limits.scans:
        raise ImageError(f"the image has {scans} scans, at most {limits.scans} are decoded")


def _reduction(size: tuple[int, int], max_side: int, limits: Limits) -> int:
    """What a JPEG's sides are divided by while it is decoded: no more than the limit or `max_side` asks for."""
    width, height = size
    needed = next(by for by in _REDUCTIONS if width * height <= limits.pixels * by * by)
    useful = min(width, height) // max_side if max_side else 1
    return max(needed, *(by for by in _REDUCTIONS if by <= max(1, useful)))


def _load(image: ImageFile, reduction: int) -> str:
    """Decode the pixels. Returns how the file holds a PNG's samples, as Pillow names it."""
    if reduction > 1:
        image.draft(None, (image.width // reduction, image.height // reduction))
    raw_mode = image.tile[0].args if image.format == "PNG" and image.tile else ""
    image.load()
    return raw_mode if isinstance(raw_mode, str) else ""


def _orientation(image: ImageFile) -> int:
    """The file's EXIF orientation, 1 to 8; 1 where the decoder has applied it, or where it cannot be read."""
    if image.format in _TURNED_BY_DECODER:
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata, in any way; the pixels are whole
        return 1
    return found if found in range(1, 9) else 1
