"""The reference image that a command names."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipeline.app.search.galleries import Gallery
from pipeline.app.search.requests import RequestError
from pipeline.app.search.user_images import UserImageError, read_user_image


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
    path = Path(named)
    if named and not path.is_file() and named in gallery.ids:
        return gallery.image(named), named
    try:
        return read_user_image(path), gallery.id_of(path)
    except UserImageError as error:
        raise RequestError(f"image {named or '(none)'}: {error}") from None
