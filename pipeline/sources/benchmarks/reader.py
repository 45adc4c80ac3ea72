"""What every benchmark's reader offers: annotations, captions and image files in the official layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.config import DataParams
from pipeline.sources.benchmarks.annotations import Annotations, BenchmarkError


@dataclass(frozen=True)
class Selection:
    """What the parameters take of one benchmark."""

    folder: Path
    splits: Sequence[str]
    parts: Sequence[str] = ()
    """Categories or tasks. Empty: every one that the split has."""
    caption_order: str = ""
    """How several captions become one text. Empty: the benchmark has one caption a query."""


class BenchmarkReader(ABC):
    """Reads one public benchmark from a folder in its official layout."""

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    annotations_source: ClassVar[str]
    """A sentence that says where the annotation files come from."""
    images_source: ClassVar[str]
    """The same for the images, and where they belong."""

    @abstractmethod
    def selection(self, params: DataParams) -> Selection:
        """What the section `data.<name>` asks for."""

    def read(self, folder: Path, split: str, parts: Sequence[str] = ()) -> list[Annotations]:
        """The queries of a split, one entry a gallery.

        Args:
            folder: The folder with the annotation files.
            split: One of `splits`.
            parts: The categories or tasks to read; empty: all.

        Raises:
            BenchmarkError: A split is unknown, or an annotation is missing or wrong.
        """
        if split not in self.splits:
            raise BenchmarkError(f"{self.name}: {split!r} is not one of its splits ({', '.join(self.splits)})")
        return self._read(folder, split, parts)

    @abstractmethod
    def _read(self, folder: Path, split: str, parts: Sequence[str]) -> list[Annotations]:
        """`read` for a split that is known."""

    @abstractmethod
    def image_files(self, folder: Path, image_ids: Sequence[str]) -> dict[str, Path]:
        """Image id -> file, for those of the images that are there."""

    def gallery(self, folder: Path, annotations: Annotations) -> tuple[str, ...]:
        """The ids of the gallery's images, in the official order."""
        if annotations.gallery is None:
            raise BenchmarkError(f"{annotations.name}: no annotation file lists the images of the gallery")
        return annotations.gallery

    def modifications(self, captions: Sequence[str], caption_order: str) -> tuple[str, ...]:
        """The captions of a query as its modifications."""
        return tuple(captions)
