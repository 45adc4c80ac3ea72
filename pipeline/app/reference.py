"""The reference that a command names."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipeline.app.gallery import Gallery
from pipeline.app.pictures import PictureError, read_picture
from pipeline.app.requests import RequestError


def find_reference(named: str, gallery: Gallery) -> tuple[Image.Image, str | None]:
    """A file's picture or a gallery's, and its id in the gallery, where it has one. Raises RequestError."""
    path = Path(named)
    if named and not path.is_file() and named in gallery.ids:
        return gallery.picture(named), named
    try:
        return read_picture(path), gallery.id_of(path)
    except PictureError as error:
        raise RequestError(f"image {named or '(none)'}: {error}") from None
