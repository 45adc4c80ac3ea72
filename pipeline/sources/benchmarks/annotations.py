"""What the readers of the four public benchmarks share: annotated queries with their gallery, and checked JSON rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

Box = tuple[float, ...]
"""Left, top, width and height in pixels."""
Crop = Callable[[int, int], list[int]]
"""Width and height of an image -> the part (left, top, right, bottom) of it."""


class BenchmarkError(ValueError):
    """A benchmark's annotation or image that is missing or not what its layout says."""


@dataclass(frozen=True)
class AnnotatedQuery:
    """One row of an official annotation file."""

    query_id: str
    reference: str
    captions: tuple[str, ...]
    """The relative captions as they are written."""
    targets: tuple[str, ...] = ()
    """Every ground truth, *the* target first; empty where the split keeps them private."""
    subset: tuple[str, ...] = ()
    """CIRR's group without the reference; GeneCIS' own small gallery, the target among it."""
    category: str = ""
    shared_concept: str = ""
    aspects: tuple[str, ...] = ()
    """CIRCO's semantic aspects."""


@dataclass(frozen=True)
class Annotations:
    """The queries that one gallery answers: a benchmark's split, or its part for one category or task."""

    benchmark: str
    name: str
    """What tells it from all others: its folder below data/benchmarks."""
    queries: tuple[AnnotatedQuery, ...]
    gallery: tuple[str, ...] | None
    """Image ids in the official order; None where no annotation file lists them (see `circo`)."""
    crops: Mapping[str, Crop] = field(default_factory=dict)
    """Image id -> the part of its file that it shows; an image that is not named shows the whole."""

    def __post_init__(self) -> None:
        if not self.queries:
            raise BenchmarkError(f"{self.name}: the annotation file has no queries")
        known = None if self.gallery is None else set(self.gallery)
        seen: set[str] = set()
        for query in self.queries:
            if query.query_id in seen:
                raise BenchmarkError(f"{self.name}: query {query.query_id!r} occurs twice")
            seen.add(query.query_id)
            for image_id in (query.reference, *query.targets, *query.subset):
                if known is not None and image_id not in known:
                    raise BenchmarkError(
                        f"{self.name}: query {query.query_id!r} names image {image_id!r}, which is not in the gallery"
                    )

    @property
    def has_targets(self) -> bool:
        return all(query.targets for query in self.queries)


class Row:
    """One JSON object of an annotation file; every access checks the type and names file, row and field."""

    def __init__(self, content: Any, where: str):
        if not isinstance(content, dict):
            raise BenchmarkError(f"{where}: not a JSON object")
        self._content, self.where = content, where

    def __contains__(self, name: str) -> bool:
        return name in self._content

    def text(self, name: str) -> str:
        return self._checked(name, self._content.get(name), str, "a text")

    def number(self, name: str) -> int:
        return self._checked(name, self._content.get(name), int, "a whole number")

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._checked(name, item, str, "a list of texts") for item in self._list(name))

    def numbers(self, name: str, kind: type | tuple[type, ...] = int) -> tuple[Any, ...]:
        return tuple(self._checked(name, item, kind, "a list of numbers") for item in self._list(name))

    def row(self, name: str) -> Row:
        return Row(self._content.get(name), f"{self.where}, {name!r}")

    def rows(self, name: str) -> list[Row]:
        return [Row(item, f"{self.where}, {name!r} {number}") for number, item in enumerate(self._list(name))]

    def _list(self, name: str) -> list[Any]:
        return self._checked(name, self._content.get(name), list, "a list")

    def _checked(self, name: str, value: Any, kind: type | tuple[type, ...], called: str) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BenchmarkError(f"{self.where}: {name!r} is missing or not {called}")
        return _text(value, f"{self.where}, {name!r}") if kind is str else value


def read_rows(path: Path, source: str) -> Iterator[Row]:
    """The objects of a JSON list, each with its place. `source` says where the file is to be had."""
    content = read_annotation(path, list, source)
    return (Row(item, f"{path}: row {number}") for number, item in enumerate(content))


def read_annotation(path: Path, kind: type, source: str) -> Any:
    """A whole annotation file. Raises BenchmarkError when it is not there, not JSON, or not of this kind."""
    if not path.is_file():
        raise BenchmarkError(f"{path}: no such annotation file; {source}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, kind):
        raise BenchmarkError(f"{path}: not a JSON {'list' if kind is list else 'object'}")
    return content


def read_names(path: Path, source: str) -> tuple[str, ...]:
    """A JSON list of texts, none twice."""
    names = tuple(
        _text(name, f"{path}: row {number}") for number, name in enumerate(read_annotation(path, list, source))
    )
    if len(set(names)) != len(names):
        repeated = next(name for name, count in Counter(names).items() if count > 1)
        raise BenchmarkError(f"{path}: {repeated!r} is listed twice")
    return names


def read_paths(path: Path, source: str) -> dict[str, str]:
    """A JSON object of image id -> path, none of which may lead out of the folder that it is relative to."""
    paths = read_annotation(path, dict, source)
    for name, place in paths.items():
        parts = PurePosixPath(_text(place, f"{path}: {_text(name, str(path))!r}"))
        if parts.is_absolute() or ".." in parts.parts:
            raise BenchmarkError(f"{path}: {name!r} is at {place!r}, outside of the benchmark's folder")
    return paths


def _text(value: Any, where: str) -> str:
    """Checked: a text that UTF-8 can hold, as tables do, and no path has a NUL in it."""
    if not isinstance(value, str) or "\0" in value or value != value.encode("utf-8", "replace").decode():
        raise BenchmarkError(f"{where}: {value!r} is not a proper text")
    return value
