"""The reference image that a command names."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.app.search.galleries import SIDE, Gallery
from pipeline.app.search.names import with_name
from pipeline.artifacts.decoding import ImageError, decode, read_image_file

_FORMATS = dict.fromkeys(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "PNG") | dict.fromkeys(
    ("CMYK", "F", "I"), "TIFF"
)
"""Mode of a PIL image -> a format that holds it without loss. Other modes, such as YCbCr, are converted to RGB."""

SUGGESTED = 3
"""How many images a message about a missing one names."""


class RequestError(ValueError):
    """What is wrong with a request."""


def find_reference(named: str, gallery: Gallery) -> tuple[Image.Image, str | None]:
    """Open the reference image.

    Args:
        named: An image file, or the id of an image in the gallery.
        gallery: The gallery that will be searched.

    Returns:
        The image, RGB, and its id in the gallery (None where it is not one of the gallery's).

    Raises:
        RequestError: When there is no such image, or it cannot be used.
    """
    try:
        content = read_image_file(named)
    except ImageError as error:
        if named in gallery.ids:
            return gallery.image(named), named
        if named and os.path.isdir(named):
            raise RequestError(f"image {named}: a folder; name one image of it") from None
        raise RequestError(f"image {named or '(none)'}: {error}{_called_so(named, gallery)}") from None
    try:
        return decode(content, SIDE), gallery.id_of(Path(named))
    except ImageError as error:
        raise RequestError(f"image {named or '(none)'}: {error}") from None


def _called_so(named: str, gallery: Gallery) -> str:
    """The end of a message: images of the gallery that have this for a name, or within it, the shortest first."""
    words = named.casefold()
    if not words.strip() or Path(named).suffix or os.path.exists(named):
        return ""
    names = ((gallery.name_of(image_id), image_id) for image_id in gallery.ids)
    found = sorted((len(name), image_id, name) for name, image_id in names if words in name.casefold())[:SUGGESTED]
    shown = ", ".join(with_name(image_id, name) for _, image_id, name in found)
    return f"; the gallery has {shown}" if shown else ", and the gallery has no such image"


def as_reference(given: str | Path | Image.Image | np.ndarray, gallery: Gallery) -> tuple[Image.Image, str | None]:
    """The reference image that a program gives.

    Args:
        given: A file, an id of the gallery, a PIL image, or an array of uint8: [H, W], [H, W, 3] or [H, W, 4].
        gallery: The gallery that will be searched.

    Returns:
        As `find_reference`.

    Raises:
        RequestError: When there is no such image, or it cannot be used.
    """
    if isinstance(given, str | Path):
        return find_reference(str(given), gallery)
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or not (given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (3, 4))):
            raise RequestError(
                f"image: an array of {given.dtype} {list(given.shape)}, not uint8 [H, W], [H, W, 3] or [H, W, 4]"
            )
        given = Image.fromarray(given)
    if not isinstance(given, Image.Image):
        raise RequestError(f"image: a {type(given).__name__} is no file, no PIL image and no array")
    try:
        return decode(_encoded(given), SIDE), None
    except ImageError as error:
        raise RequestError(f"image: {error}") from None


def _encoded(image: Image.Image) -> bytes:
    """An image without loss as a file, with its orientation and profile, for the one decoder to read."""
    buffer = io.BytesIO()
    held = image if image.mode in _FORMATS else image.convert("RGB")
    held.save(buffer, _FORMATS[held.mode], exif=image.getexif(), icc_profile=image.info.get("icc_profile"))
    return buffer.getvalue()
