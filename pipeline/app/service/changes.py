"""Images that come to a library and leave it while others search."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.app.search.galleries import FolderGallery
from pipeline.app.search.indexing import Indexer
from pipeline.app.search.library import Library
from pipeline.app.search.metadata import NAMES as METADATA_NAMES
from pipeline.app.search.searcher import Searcher
from pipeline.app.service.inputs import decoded
from pipeline.app.service.problems import ServiceError, invalid, unknown_id
from pipeline.artifacts import ArtifactError, write_atomically

MAX_ID, MAX_PART = 400, 200
"""Characters of an id, and bytes of each of its parts, which are names of files."""


@dataclass(frozen=True)
class NewImage:
    """A file to add."""

    image_id: str
    content: bytes


class Changes:
    """Adds images to the library that is served, and removes them, one change after the other.

    Args:
        searcher: Its models embed what is added, in turn with searches.
    """

    def __init__(self, searcher: Searcher):
        self._searcher, self._lock = searcher, threading.Lock()
        self._indexer: Indexer | None = None

    def add(
        self, images: Sequence[NewImage], fields: Mapping[str, Mapping[str, Any]], replace: bool
    ) -> tuple[int, int]:
        """Write files below the library's root and index them. When this returns, they are on the disk and found.

        A file that has these bytes already is indexed as it is, so that a caller who got no answer may ask again.

        Args:
            images: Their ids are paths below the root.
            fields: Id -> metadata.
            replace: Whether a file that is there may be replaced.

        Returns:
            How many images are new, and how many were replaced.

        Raises:
            ServiceError: An id cannot be a file of the library, an image is no image, or metadata does not fit. Then
                nothing has changed.
        """
        library = self._library()
        ids = [image.image_id for image in images]
        if len(set(ids)) < len(ids):
            raise invalid(f"image: {next(one for one in ids if ids.count(one) > 1)[:100]!r} comes twice")
        if stray := set(fields) - set(ids):
            raise invalid(f"metadata: {min(stray)[:100]!r} is none of the images that are added")
        targets = [target_of(image.image_id, library) for image in images]
        for image in images:
            decoded(f"image {image.image_id[:100]!r}", image.content)
        with self._lock:
            new = {target: image.content for target, image in zip(targets, images, strict=True)}
            before = {target: _content(target) for target in targets}
            before = {target: content for target, content in before.items() if content != new[target]}
            there = [target.relative_to(library.root).as_posix() for target, old in before.items() if old is not None]
            if there and not replace:
                raise ServiceError(409, "exists", f"image: {there[0][:100]!r} is there; `replace` lets it be replaced")
            try:
                for target in before:
                    _write(target, new[target])
                done = self._indexer_of(library).add(targets, fields)
            except ArtifactError as error:
                _restore(before)
                raise invalid(f"metadata or image: {error}") from None
            except BaseException:
                _restore(before)
                raise
        return done.added, done.updated

    def remove(self, image_id: str, with_file: bool) -> None:
        """Remove an image from the library.

        Args:
            image_id: Its id.
            with_file: Whether its file goes, too. Else the next `cir index` of the folder finds it again.

        Raises:
            ServiceError: There is no such image.
        """
        library = self._library()
        with self._lock:
            if image_id not in library or not library.remove([image_id]):
                raise unknown_id("id", image_id)
            path = library.root / image_id
            if with_file and path.is_file() and path.resolve().is_relative_to(library.root):
                path.unlink(missing_ok=True)

    def _library(self) -> Library:
        gallery = self._searcher.gallery
        if not isinstance(gallery, FolderGallery):
            raise ServiceError(409, "read_only", f"{gallery.name} is a benchmark, which does not change")
        return gallery.library

    def _indexer_of(self, library: Library) -> Indexer:
        if self._indexer is None:
            self._indexer = Indexer(library, self._searcher.models, guard=self._searcher.guard)
        return self._indexer


def target_of(image_id: str, library: Library) -> Path:
    """The file of a new image. Raises ServiceError for an id that is no path of a visible file below the root."""
    parts = PurePosixPath(image_id).parts
    is_plain = image_id.isprintable() and "\\" not in image_id and image_id == "/".join(parts)
    if not (parts and is_plain and len(image_id) <= MAX_ID):
        raise invalid(f"image: {image_id[:100]!r} is no path below the folder, such as more/dog.jpg")
    if any(part.startswith(".") or len(part.encode("utf-8", "replace")) > MAX_PART for part in parts):
        raise invalid(f"image: {image_id[:100]!r} has a part that is hidden, leads upwards, or is too long")
    target, root = library.root / image_id, library.root
    try:
        real, content = target.parent.resolve() / target.name, target.resolve()
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        raise invalid(f"image: {image_id[:100]!r} leads through links in a circle") from None
    if not (real.is_relative_to(root) and content.is_relative_to(root)):
        raise invalid(f"image: {image_id[:100]!r} leads out of the folder")
    if real.parent != target.parent:
        own = real.relative_to(root).as_posix()
        raise invalid(f"image: {image_id[:100]!r} leads through a link to a folder; its own name is {own[:100]!r}")
    if real.is_relative_to(library.folder.resolve()) or image_id in METADATA_NAMES:
        raise invalid(f"image: {image_id[:100]!r} is where the library keeps something else")
    is_other = target.exists() and not target.is_file()
    if is_other or any(parent.is_file() for parent in target.parents if parent.is_relative_to(root)):
        raise invalid(f"image: {image_id[:100]!r} is a folder or no regular file, or lies in a file")
    return target


def _content(target: Path) -> bytes | None:
    """What a file holds; None where there is none. A link without a file holds nothing."""
    if target.exists():
        return target.read_bytes()
    return b"" if target.is_symlink() else None


def _write(target: Path, content: bytes) -> None:
    with write_atomically(target) as aside, open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _restore(before: Mapping[Path, bytes | None]) -> None:
    """Put files back as they were."""
    for target, content in before.items():
        if content is None:
            target.unlink(missing_ok=True)
        else:
            _write(target, content)
