"""A plain folder of images with a CSV of captions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipeline.artifacts.ids import IdError, id_of
from pipeline.artifacts.texts import clean_text, file_encoding
from pipeline.sources.errors import SourceError
from pipeline.sources.web.samples import Sample

COLUMNS = ("image", "caption")


def csv_folder(folder: Path, name: str) -> Iterator[Sample]:
    """The images that every `*.csv` right in the folder names.

    Column `image` is a path within the folder, `caption` may be empty. An image's id is its whole path: `cat.jpg` and
    `cat.png` are two images. Of several captions of an image the first is taken.

    Raises:
        SourceError: A file lacks one of these columns, or is no CSV in UTF-8 or in what its byte order mark says.
    """
    seen: set[str] = set()
    for path in sorted(folder.glob("*.csv")):
        for image, caption in _rows(path):
            if image in seen:
                yield Sample(f"{name}/{image}", reason="a further caption of this image")
            else:
                yield _sample(folder.resolve(), path, name, image, caption)
            seen.add(image)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """What the two columns say, row by row."""
    try:
        with path.open(encoding=file_encoding(path), newline="") as file:
            rows = csv.DictReader(file)
            rows.fieldnames = [clean_text(column) for column in rows.fieldnames or ()]
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                found = ", ".join(rows.fieldnames or ()) or "nothing"
                raise SourceError(f"{path}: there is no column {missing[0]!r} (found: {found})")
            for row in rows:
                yield row["image"] or "", clean_text(row["caption"] or "")
    except (csv.Error, UnicodeError) as error:
        raise SourceError(f"{path}: not readable as CSV in UTF-8 ({error})") from None


def _sample(root: Path, path: Path, name: str, image: str, caption: str) -> Sample:
    try:
        image_id = id_of(name, image)
    except IdError as error:
        return Sample(f"{name}/{image}", reason=str(error))
    try:
        place = (root / image).resolve()
        if not place.is_relative_to(root):
            return Sample(image_id, reason=f"{image} leads out of the folder")
        if place.is_file():
            return Sample(image_id, place.read_bytes(), caption)
    except (OSError, ValueError):  # no name that a file can have
        pass
    return Sample(image_id, reason=f"{path.name} names {image}, which is not there")
