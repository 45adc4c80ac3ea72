"""A plain folder of images with a CSV of captions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.errors import SourceError
from pipeline.sources.web.samples import Sample

COLUMNS = ("image", "caption")


def csv_folder(folder: Path, name: str) -> Iterator[Sample]:
    """The images that every `*.csv` right in the folder names.

    Column `image` is a path within the folder, `caption` may be empty.

    Raises:
        SourceError: A file lacks one of these columns, or is no CSV in UTF-8.
    """
    seen: set[str] = set()
    for path in sorted(folder.glob("*.csv")):
        for image, caption in _rows(path):
            if image in seen:
                yield Sample(_image_id(name, image), reason="a second picture of this id")
            else:
                yield _sample(folder.resolve(), path, name, image, caption)
            seen.add(image)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """What the two columns say, row by row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                found = ", ".join(rows.fieldnames or ()) or "nothing"
                raise SourceError(f"{path}: there is no column {missing[0]!r} (found: {found})")
            for row in rows:
                yield row["image"] or "", " ".join((row["caption"] or "").split())
    except (csv.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not readable as CSV in UTF-8 ({error})") from None


def _sample(root: Path, path: Path, name: str, image: str, caption: str) -> Sample:
    image_id = _image_id(name, image)
    try:
        place = (root / image).resolve()
        if not place.is_relative_to(root):
            return Sample(image_id, reason=f"{image} leads out of the folder")
        if place.is_file():
            return Sample(image_id, place.read_bytes(), caption)
    except (OSError, ValueError):  # no name that a file can have
        pass
    return Sample(image_id, reason=f"{path.name} names {image}, which is not there")


def _image_id(name: str, image: str) -> str:
    return f"{name}/{image.rsplit('.', 1)[0]}"
