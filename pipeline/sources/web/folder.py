"""A plain folder of images with a CSV of captions."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipeline.artifacts.archives import place_in
from pipeline.artifacts.ids import IdError, id_of
from pipeline.artifacts.image_formats import HEAD, is_image, sniff
from pipeline.artifacts.texts import clean_text, file_encoding
from pipeline.sources.errors import SourceError
from pipeline.sources.files import files_below
from pipeline.sources.raw import real_folders
from pipeline.sources.web.passed_over import PassedOver, printable
from pipeline.sources.web.samples import Sample

COLUMNS = ("image", "caption")
_FURTHER = "further"


def csv_folder(folder: Path, name: str) -> Iterator[Sample]:
    """The images that the `*.csv` right in the folder name.

    Column `image` is a path within the folder, `caption` may be empty. An image's id is its whole path: `cat.jpg` and
    `cat.png` are two images. An image may have several rows: each caption makes a pair of its own. Files that no CSV
    names are listed.

    Raises:
        SourceError: A file lacks one of these columns, or is no CSV in UTF-8 or in what its byte order mark says.
    """
    captions: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.glob("*.csv") if not path.name.startswith(".")):
        for number, image, caption in _rows(path):
            try:
                image_id = id_of(name, image)
            except IdError as error:
                yield Sample(f"{name}/{printable(image)}", reason=str(error))
                continue
            found = captions.setdefault(image_id, [])
            if caption is None:
                reason = f"row {number} of {path.name} has more fields than columns: a comma in a caption needs quotes"
                yield Sample(image_id, reason=reason)
            elif caption and caption not in found:
                found.append(caption)
    for image_id, texts in captions.items():
        yield _sample(folder, image_id, image_id.removeprefix(f"{name}/"), tuple(texts))
    yield from _unnamed(folder, name, captions)


def _rows(path: Path) -> Iterator[tuple[int, str, str | None]]:
    """What the two columns say, with the row's number; None for the caption of a row of too many fields."""
    try:
        with path.open(encoding=file_encoding(path), newline="") as file:
            rows = csv.DictReader(file, restkey=_FURTHER)
            rows.fieldnames = [clean_text(column) for column in rows.fieldnames or ()]
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                found = ", ".join(rows.fieldnames or ()) or "nothing"
                raise SourceError(f"{path}: there is no column {missing[0]!r} (found: {found})")
            for number, row in enumerate(rows, 1):
                yield number, row["image"] or "", None if _FURTHER in row else clean_text(row["caption"] or "")
    except (csv.Error, UnicodeError) as error:
        raise SourceError(f"{path}: not readable as CSV in UTF-8 ({error})") from None


def _sample(folder: Path, image_id: str, image: str, captions: tuple[str, ...]) -> Sample:
    try:
        place = (folder / image).resolve()
        if not any(place.is_relative_to(real) for real in real_folders(folder)):
            return Sample(image_id, reason=f"{image} leads out of the folder")
        if place.is_file():
            content = place.read_bytes()
            return Sample(image_id, content, captions, place=place_in(folder / image, 0, len(content)))
    except (OSError, ValueError):  # no name that a file can have
        pass
    return Sample(image_id, reason=f"the CSV names {image}, which is not there")


def _unnamed(folder: Path, name: str, named: dict[str, list[str]]) -> Iterator[Sample]:
    """The files that no CSV names; images one by one."""
    passed_over = PassedOver(name)
    for path in files_below(folder):
        image = path.relative_to(folder).as_posix()
        if f"{name}/{image}" in named or (path.parent == folder and path.suffix == ".csv"):
            continue
        try:
            with path.open("rb") as file:
                head = file.read(HEAD)
        except OSError as error:
            passed_over.add(image, f"it cannot be read ({error.strerror})")
            continue
        if is_image(head):
            yield Sample(f"{name}/{printable(image)}", reason="an image that no CSV names", is_image=False)
        else:
            passed_over.add(image, f"not an image: {sniff(head) or 'a file of no known format'}")
    yield from passed_over.samples()
