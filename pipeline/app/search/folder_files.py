"""What lies in a folder of images: every file, told by its content, and why some are left out."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.image_formats import FORMATS, HEAD, sniff

HASH_BYTES = 16

OUTSIDE = "a link that leads out of the folder"
HIDDEN = "hidden: the name begins with a dot"
COMPANION = "a file that macOS lays beside another one"


@dataclass(frozen=True)
class FoundFile:
    """A file below a folder, or a folder that is not gone into."""

    path: Path
    reason: str = ""
    """Why it is left out without being opened; "" where its content decides."""


OTHER_NAME = "a link to a folder that is read under another name"


def find_files(folder: Path, library: Path, root: Path | None = None) -> list[FoundFile]:
    """Every file below a folder, in order of their paths.

    Nothing hidden is opened. A linked folder is gone into when it lies in `folder` and was not met under another name.

    Args:
        folder: Holds the images, or is one of them.
        library: Where the folder's library is, which is no part of what is found.
        root: What links must not lead out of; None: `folder`. Folders of it are read under their own names.
    """
    walk = _Walk(folder, library, root or folder)
    walk.run()
    return sorted(walk.found, key=lambda file: file.path.relative_to(folder).as_posix())


class _Walk:
    """Goes through a folder; each folder is entered once, whatever links lead to it."""

    def __init__(self, folder: Path, library: Path, root: Path):
        self.found: list[FoundFile] = []
        self._folder, self._top, self._root = folder, folder.resolve(), root.resolve()
        self._links: list[Path] = []
        """Links to folders, gone into when all folders were met under their own names."""
        self._library = _key(library.stat()) if library.is_dir() else None
        self._entered = {self._library} if self._library else set()
        """Device and inode of folders."""

    def run(self) -> None:
        if self._folder.is_dir():
            self._go_through(self._folder)
        elif self._folder.is_symlink():
            self._note_link(self._folder)
        else:
            self._note_file(self._folder, self._folder.stat().st_mode)
        while self._links:
            link = self._links.pop(0)
            if _key(link.stat()) in self._entered:
                self._leave_out(link, OTHER_NAME)
            else:
                self._go_through(link)

    def _go_through(self, top: Path) -> None:
        pending = [top]
        while pending:
            where = pending.pop()
            try:
                self._entered.add(_key(where.stat()))
                entries = sorted(os.scandir(where), key=lambda entry: entry.name)
            except OSError as error:
                self._leave_out(where, f"the folder cannot be read: {error.strerror}")
                continue
            pending += [Path(entry.path) for entry in entries if self._is_to_be_entered(entry)]

    def _is_to_be_entered(self, entry: os.DirEntry[str]) -> bool:
        """Whether this is a folder to go into now; anything else is noted."""
        path = Path(entry.path)
        if entry.is_symlink():
            self._note_link(path)
            return False
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # it was removed meanwhile
            return False
        if stat.S_ISDIR(status.st_mode):
            if _key(status) == self._library:
                return False
            if _key(status) in self._entered:
                self._leave_out(path, "a folder that is read under another name")
                return False
            if not entry.name.startswith("."):
                return True
        self._note_file(path, status.st_mode)
        return False

    def _note_link(self, path: Path) -> None:
        try:
            target, status = path.resolve(strict=True), path.stat()
        except (OSError, RuntimeError):  # RuntimeError: links in a circle
            self._leave_out(path, "a link that leads nowhere")
            return
        is_hidden = path.name.startswith(".")
        if not is_hidden and not target.is_relative_to(self._root):
            self._leave_out(path, OUTSIDE)
        elif not is_hidden and stat.S_ISDIR(status.st_mode):
            if target.is_relative_to(self._top):
                self._links.append(path)
            else:
                self._leave_out(path, OTHER_NAME)
        else:
            self._note_file(path, status.st_mode)

    def _note_file(self, path: Path, mode: int) -> None:
        if path.name.startswith("."):
            self._leave_out(path, COMPANION if path.name.startswith("._") else HIDDEN)
        elif not stat.S_ISREG(mode):
            self._leave_out(path, "neither a file nor a folder")
        else:
            self.found.append(FoundFile(path))

    def _leave_out(self, path: Path, reason: str) -> None:
        self.found.append(FoundFile(path, reason))


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def describe_file(folder: Path, file: FoundFile) -> dict[str, Any]:
    """What a file is.

    Only the first bytes of a file that is no image are read.

    Args:
        folder: Holds the file.
        file: One that `find_files` found in it.

    Returns:
        `image_id` (its path below the folder), `size` and `blake2b`; or a `reason` to leave it out, and neither.
    """
    name = file.path.relative_to(folder).as_posix()
    row = {"image_id": name, "size": 0, "blake2b": "", "reason": file.reason}
    if not is_utf8(name):
        row |= {"image_id": ascii(name), "reason": file.reason or "its name is not UTF-8"}
    if row["reason"]:
        return row
    try:
        with open(file.path, "rb") as opened:
            head = opened.read(HEAD)
            if (kind := sniff(head)) not in FORMATS:
                return row | {"reason": _no_image(head, kind)}
            opened.seek(0)
            digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=HASH_BYTES)).hexdigest()
            return row | {"size": opened.tell(), "blake2b": digest}
    except OSError as error:
        return row | {"reason": f"the file cannot be read: {error.strerror}"}


def is_utf8(name: str | Path) -> bool:
    """Whether a name can be written down; Unix allows any bytes."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_image(head: bytes, kind: str) -> str:
    if not head:
        return "the file has no bytes"
    return f"no image that can be read: it is {kind or 'in no known format'}"


def hash_of(content: bytes) -> str:
    """BLAKE2b of an image's bytes, as `describe_file` tells it."""
    return hashlib.blake2b(content, digest_size=HASH_BYTES).hexdigest()
