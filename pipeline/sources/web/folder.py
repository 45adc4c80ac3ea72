"""A plain folder of pictures with a CSV of captions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.emoji.fetch import SourceError
from pipeline.sources.web.samples import Sample

COLUMNS = ("image", "caption")


def csv_folder(folder: Path, name: str) -> Iterator[Sample]:
    """Every `*.csv` right in the folder names its pictures: column `image` is a path within the folder, `caption` may be empty.

    Raises SourceError for a file without these columns.
    """
    seen: set[str] = set()
    root = folder.resolve()
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise SourceError(f"{path}: there is no column {missing[0]!r} (found: {', '.join(rows.fieldnames or ()) or 'nothing'})")
            for row in rows:
                picture = row["image"] or ""
                image_id, caption = f"{name}/{picture.rsplit('.', 1)[0]}", " ".join((row["caption"] or "").split())
                place = (root / picture).resolve()
                if picture in seen:
                    yield Sample(image_id, reason="a second picture of this id")
                elif not place.is_relative_to(root):
                    yield Sample(image_id, reason=f"{picture} leads out of the folder")
                elif not place.is_file():
                    yield Sample(image_id, reason=f"{path.name} names {picture}, which is not there")
                else:
                    yield Sample(image_id, place.read_bytes(), caption)
                seen.add(picture)
