"""Tar archives of images: webdataset shards as img2dataset writes them (CC3M, CC12M), SA-1B's, and JourneyDB's."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.artifacts.ids import id_of
from pipeline.artifacts.texts import TextError, clean_text, clean_texts
from pipeline.sources.errors import SourceError
from pipeline.sources.tar import read_member
from pipeline.sources.web.samples import Sample

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, TypeError, ValueError)
"""How tarfile stumbles over damaged bytes."""


def webdataset(folder: Path, name: str) -> Iterator[Sample]:
    """Archives in which `KEY.jpg` comes with `KEY.txt` (the caption) or, where that is missing, `KEY.json`'s `caption`.

    SA-1B's archives are read by the same rule: its JSON holds masks and no caption. Of several captions the first is
    taken. An image's id is the archive's path without `.tar`, then its key.
    """
    for path in archives(folder):
        prefix = id_of(name, path.relative_to(folder).as_posix(), ".tar")
        key = ""
        parts: dict[str, bytes] = {}
        for member, content in members(path):
            if not member:
                yield Sample(f"{prefix}/", reason=f"{path.name} is damaged: {content.decode()}")
                continue
            within, _, base = member.rpartition("/")
            stem, _, extension = base.partition(".")
            stem = f"{within}/{stem}" if within else stem
            if stem != key and parts:
                yield from _sample(f"{prefix}/{key}", parts)
                parts = {}
            key = stem
            parts[extension.lower()] = content
        if parts:
            yield from _sample(f"{prefix}/{key}", parts)


def _sample(image_id: str, parts: dict[str, bytes]) -> Iterator[Sample]:
    image = next((content for extension, content in parts.items() if extension in IMAGES), None)
    if image is None:
        return
    try:
        yield Sample(image_id, image, _caption(parts))
    except TextError as error:
        yield Sample(image_id, reason=f"its caption is {error}")


def _caption(parts: dict[str, bytes]) -> str:
    """The first caption, cleaned. Raises TextError for what is no text."""
    if parts.get("txt"):
        return clean_text(parts["txt"])
    try:
        found = json.loads(parts.get("json") or b"{}").get("caption")
    except (ValueError, AttributeError, RecursionError):  # not JSON, or not an object: as if it were not there
        return ""
    return next(iter(clean_texts(found)), "")


def journeydb(folder: Path, name: str) -> Iterator[Sample]:
    """JourneyDB: `*.jsonl` annotations and archives of `000/NAME.jpg`.

    An annotation is one object an image, with `img_path` and `Task2.Caption` or `prompt`.

    Raises:
        SourceError: An annotation is none; names the file and the line.
    """
    captions = _journeydb_captions(folder)
    for path in archives(folder):
        for member, content in members(path):
            if not member:
                yield Sample(f"{name}/{path.name}", reason=f"{path.name} is damaged: {content.decode()}")
            elif member.rsplit(".", 1)[-1].lower() in IMAGES:
                yield Sample(f"{name}/{member}", content, captions.get(member, ""))


def _journeydb_captions(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    entry = json.loads(line)
                    caption = (entry.get("Task2") or {}).get("Caption") or entry.get("prompt") or ""
                    found[_inside(entry["img_path"])] = next(iter(clean_texts(caption)), "")
                except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
                    raise SourceError(
                        f"{path}: line {number} is no annotation ({type(error).__name__}: {error})"
                    ) from None
    return found


def archives(folder: Path) -> list[Path]:
    """The tar files below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.name.endswith((".tar", ".tgz", ".tar.gz")))


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an archive with their contents, read once from front to end.

    Yields:
        Path within the archive and content. At damage the last item is "" and what is wrong.
    """
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile():
                    content = read_member(archive, member)
                    if len(content) < member.size:
                        raise tarfile.ReadError(f"{member.name} breaks off")
                    yield _inside(member.name), content
    except _DAMAGED as error:
        yield "", (str(error) or type(error).__name__).encode()


def _inside(name: str) -> str:
    return PurePosixPath(name).as_posix().removeprefix("./")
