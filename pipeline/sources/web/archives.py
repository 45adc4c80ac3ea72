"""Tar archives of images: webdataset shards as img2dataset writes them (CC3M, CC12M), SA-1B's, and JourneyDB's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.artifacts.ids import IdError, id_of
from pipeline.artifacts.texts import TextError, clean_text, clean_texts
from pipeline.sources.errors import SourceError
from pipeline.sources.files import files_below
from pipeline.sources.web.members import TEXTS, DamageError, Member, members
from pipeline.sources.web.passed_over import PassedOver, printable
from pipeline.sources.web.samples import Sample

ARCHIVES = (".tar", ".tgz", ".tar.gz")


def webdataset(folder: Path, name: str) -> Iterator[Sample]:
    """Archives in which an image comes with a caption of the same name: `KEY.txt`, `KEY.caption`, or `caption` in JSON.

    Members may stand in any order: a first pass over an archive reads its captions and finds its images by their
    first bytes, a second one reads the images. SA-1B's archives are read by the same rule: its JSON holds masks and no
    caption. An image's id is the archive's path without `.tar`, then its own without the ending.
    """
    for path in archives(folder):
        yield from _Archive(path, id_of(name, path.relative_to(folder).as_posix(), ".tar")).samples()


def archives(folder: Path) -> list[Path]:
    """The tar files below a folder, in order."""
    return files_below(folder, ARCHIVES)


class _Archive:
    """One archive; its captions are in memory.

    Args:
        path: Of the archive.
        place: What ids begin with.
    """

    def __init__(self, path: Path, place: str):
        self._path, self._place = path, place
        self._texts: dict[str, tuple[int, tuple[str, ...], str]] = {}
        """By stem: how far down in `TEXTS`, the captions, and why they cannot be used."""
        self._images: set[int] = set()
        """Which members are images."""
        self._keys: Counter[str] = Counter()
        """How many images have a key."""
        self._used: set[str] = set()
        self._passed_over = PassedOver(place)

    def samples(self) -> Iterator[Sample]:
        damage = self._index()
        try:
            for number, member in enumerate(members(self._path)):
                if number in self._images:
                    yield self._sample(member)
        except DamageError:
            pass  # told below
        if damage:
            yield Sample(f"{self._place}/", reason=f"{self._path.name} is damaged: {damage}")
        else:
            for stem in self._texts:
                if stem not in self._used:
                    self._passed_over.add(stem, "a caption without an image")
        yield from self._passed_over.samples()

    def _index(self) -> str:
        """Read the captions and find the images; what is damaged, or an empty text."""
        try:
            for number, member in enumerate(members(self._path)):
                if reason := member.passed_over():
                    self._passed_over.add(member.name, reason)
                elif member.ending in TEXTS:
                    self._add_text(member)
                else:
                    self._images.add(number)
                    self._keys[member.key] += 1
        except DamageError as error:
            return str(error)
        return ""

    def _add_text(self, member: Member) -> None:
        trust = TEXTS.index(member.ending)
        captions: tuple[str, ...] = ()
        reason = ""
        try:
            captions = _captions(member)
        except TextError as error:
            reason = f"its caption is {error}"
        before = self._texts.get(member.stem)
        is_better = before is None or not (before[1] or before[2]) or trust < before[0]
        if is_better and (captions or reason or before is None):
            self._texts[member.stem] = (trust, captions, reason)

    def _sample(self, member: Member) -> Sample:
        try:
            image_id = id_of(self._place, member.stem)
        except IdError as error:
            return Sample(f"{self._place}/{printable(member.name)}", reason=str(error))
        stem = member.stem
        if stem not in self._texts and self._keys[member.key] == 1:
            stem = member.key
        self._used.add(stem)
        _, captions, reason = self._texts.get(stem, (0, (), ""))
        if reason:
            return Sample(image_id, reason=reason)
        try:
            return Sample(image_id, member.content(), captions, place=member.place())
        except DamageError as error:
            return Sample(image_id, reason=str(error))


def _captions(member: Member) -> tuple[str, ...]:
    """The captions that a text file holds. Raises TextError for what is no text."""
    content = member.content()
    if member.ending != "json":
        return tuple(clean_texts(clean_text(content)))
    try:
        found = json.loads(content or b"{}").get("caption")
    except (ValueError, AttributeError, RecursionError):  # not JSON, or not an object: as if it were not there
        return ()
    return tuple(clean_texts(found))


def journeydb(folder: Path, name: str) -> Iterator[Sample]:
    """JourneyDB: `*.jsonl` annotations and archives of `000/NAME.jpg`.

    An annotation is one object an image, with `img_path` and `Task2.Caption` or `prompt`.

    Raises:
        SourceError: An annotation is none; names the file and the line.
    """
    captions = _journeydb_captions(folder)
    for path in archives(folder):
        passed_over = PassedOver(f"{name}/{path.name}")
        try:
            for member in members(path):
                reason = member.passed_over() or ("a text, not an image" if member.ending in TEXTS else "")
                if reason:
                    passed_over.add(member.name, reason)
                else:
                    yield _journeydb_sample(name, member, captions.pop(member.name, ()))
        except DamageError as error:
            yield Sample(f"{name}/{path.name}", reason=f"{path.name} is damaged: {error}")
        yield from passed_over.samples()
    without = PassedOver(name)
    for image in captions:
        without.add(image, "an annotation whose image is in no archive")
    yield from without.samples()


def _journeydb_sample(name: str, member: Member, captions: tuple[str, ...]) -> Sample:
    try:
        return Sample(id_of(name, member.name), member.content(), captions, place=member.place())
    except (IdError, DamageError) as error:
        return Sample(f"{name}/{printable(member.name)}", reason=str(error))


def _journeydb_captions(folder: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for path in files_below(folder, (".jsonl",)):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    entry = json.loads(line)
                    found[_inside(entry["img_path"])] = _journeydb_caption(entry)
                except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
                    raise SourceError(
                        f"{path}: line {number} is no annotation ({type(error).__name__}: {error})"
                    ) from None
    return found


def _journeydb_caption(entry: dict[str, Any]) -> tuple[str, ...]:
    return tuple(clean_texts((entry.get("Task2") or {}).get("Caption") or entry.get("prompt")))


def _inside(name: str) -> str:
    return PurePosixPath(name).as_posix().removeprefix("./")
