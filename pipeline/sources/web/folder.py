"""A plain folder of images with a CSV of captions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.emoji.fetch import SourceError
from pipeline.sources.web.samples import Sample

COLUMNS = ("image", "caption")


def csv_folder(folder: Path, name: str) -> Iterator[Sample]:
    """Every `*.csv` right in the folder names its images: column `image` is a path within the folder, `caption` may be empty.

    Raises SourceError for a file without these columns, or that is no CSV in UTF-8.
    """
    seen: set[str] = set()
    for path in sorted(folder.glob("*.csv")):
        for picture, caption in _rows(path):
            yield _sample(folder.resolve(), path, name, picture, caption, picture in seen)
            seen.add(picture)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """What the two columns say, row by row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise SourceError(
                    f"{path}: there is no column {missing[0]!r} (found: {', '.join(rows.fieldnames or ()) or 'nothing'})"
                )
            for row in rows:
                yield row["image"] or "", " ".join((row["caption"] or "").split())
    except (csv.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not readable as CSV in UTF-8 ({error})") from None


def _sample(root: Path, path: Path, name: str, picture: str, caption: str, again: bool) -> Sample:
    image_id = f"{name}/{picture.rsplit('.', 1)[0]}"
    if again:
        return Sample(image_id, reason="a second picture of this id")
    try:
        place = (root / picture).resolve()
        if not place.is_relative_to(root):
            return Sample(image_id, reason=f"{picture} leads out of the folder")
        if place.is_file():
            return Sample(image_id, place.read_bytes(), caption)
    except (OSError, ValueError):  # no name that a file can have
        pass
    return Sample(image_id, reason=f"{path.name} names {picture}, which is not there")
