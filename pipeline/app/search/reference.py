"""The reference that a command names."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipeline.app.search.galleries import Gallery
from pipeline.app.search.requests import RequestError
from pipeline.app.search.user_images import UserImageError, read_user_image


def find_reference(named: str, gallery: Gallery) -> tuple[Image.Image, str | None]:
    """A file's image or a gallery's, and its id in the gallery, where it has one. Raises RequestError."""
    path = Path(named)
    if named and not path.is_file() and named in gallery.ids:
        return gallery.image(named), named
    try:
        return read_user_image(path), gallery.id_of(path)
    except UserImageError as error:
        raise RequestError(f"image {named or '(none)'}: {error}") from None
