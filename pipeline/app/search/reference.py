"""The reference image that a command names."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipeline.app.search.galleries import SIDE, Gallery
from pipeline.artifacts.decoding import ImageError, decode, read_image_file


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
        raise RequestError(f"image {named or '(none)'}: {error}") from None
    try:
        return decode(content, SIDE), gallery.id_of(Path(named))
    except ImageError as error:
        raise RequestError(f"image {named or '(none)'}: {error}") from None
