"""Tar archives of images: webdataset shards as img2dataset writes them (CC3M, CC12M), SA-1B's, and JourneyDB's."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.sources.errors import SourceError
from pipeline.sources.tar import read_member
from pipeline.sources.web.samples import Sample

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, TypeError, ValueError)
"""How tarfile stumbles over damaged bytes."""


def webdataset(folder: Path, name: str) -> Iterator[Sample]:
    """Archives in which `KEY.jpg` comes with `KEY.txt` (the caption) or, where that is missing, `KEY.json`'s `caption`.

    SA-1B's archives are read by the same rule: its JSON holds masks and no caption.
    """
    for path in archives(folder):
        prefix = f"{name}/{path.relative_to(folder).as_posix().split('.')[0]}"
        seen: set[str] = set()
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
                yield from _sample(prefix, key, parts, seen)
                parts = {}
            key = stem
            parts[extension.lower()] = content
        if parts:
            yield from _sample(prefix, key, parts, seen)


def _sample(prefix: str, key: str, parts: dict[str, bytes], seen: set[str]) -> Iterator[Sample]:
    image = next((content for extension, content in parts.items() if extension in IMAGES), None)
    if image is None:
        return
    image_id = f"{prefix}/{key}"
    if key in seen:
        yield Sample(image_id, reason="a second picture of this id")
        return
    seen.add(key)
    yield Sample(image_id, image, _caption(parts))


def _caption(parts: dict[str, bytes]) -> str:
    if parts.get("txt"):
        return _words(parts["txt"].decode("utf-8", "replace"))
    try:
        return _words(json.loads(parts.get("json") or b"{}").get("caption") or "")
    except (ValueError, AttributeError, RecursionError):  # not JSON, or not an object: as if it were not there
        return ""


def journeydb(folder: Path, name: str) -> Iterator[Sample]:
    """JourneyDB: `*.jsonl` annotations and archives of `000/NAME.jpg`.

    An annotation is one object an image, with `img_path` and `Task2.Caption` or `prompt`.

    Raises:
        SourceError: An annotation is none; names the file and the line.
    """
    captions = _journeydb_captions(folder)
    for path in archives(folder):
        seen: set[str] = set()
        for member, content in members(path):
            image_id = f"{name}/{member.rsplit('.', 1)[0]}" if member else f"{name}/{path.name}"
            if not member:
                yield Sample(image_id, reason=f"{path.name} is damaged: {content.decode()}")
            elif member.rsplit(".", 1)[-1].lower() in IMAGES:
                again = "a second picture of this id" if member in seen else ""
                seen.add(member)
                yield Sample(image_id, b"" if again else content, captions.get(member, ""), again)


def _journeydb_captions(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    entry = json.loads(line)
                    caption = (entry.get("Task2") or {}).get("Caption") or entry.get("prompt") or ""
                    found[_inside(entry["img_path"])] = _words(caption)
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


def _words(text: str) -> str:
    return " ".join(str(text).split())
