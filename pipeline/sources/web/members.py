"""The files in a tar archive, and what their names and their first bytes say about them."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, Self

from pipeline.artifacts.archives import Place, place_in
from pipeline.artifacts.image_formats import HEAD, is_image, sniff

TEXTS = ("txt", "caption", "json")
"""The endings of captions, the most trusted first."""
IMAGES = frozenset(
    {"avif", "bmp", "gif", "heic", "heif", "hif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "jxl"}
    | {"pbm", "pgm", "png", "pnm", "ppm", "svg", "tif", "tiff", "webp"}
)
"""What is called so is meant to be an image, and rejected with its reason where it is none that can be read."""
_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, TypeError, ValueError, OverflowError)
"""How tarfile stumbles over damaged bytes."""


class DamageError(ValueError):
    """An archive, or a file in it, that breaks off or is not what it should be."""


class Member:
    """A file in an archive that is being gone through.

    Args:
        info: What the archive says of it.
        stream: Its content; None for links and devices.
        archive: The archive, where its bytes lie there as they are; None: it is compressed.
    """

    def __init__(self, info: tarfile.TarInfo, stream: IO[bytes] | None, archive: Path | None = None):
        self.name = PurePosixPath(info.name).as_posix().removeprefix("./")
        self._size, self._stream, self._head = info.size, stream, b""
        self.is_file = stream is not None
        self._archive = None if info.issparse() else archive
        self._offset = info.offset_data
        folder, _, self.base = self.name.rpartition("/")
        stem, _, ending = self.base.rpartition(".")
        self.ending = ending.lower() if stem else ""
        within = f"{folder}/" if folder else ""
        is_known = self.ending in IMAGES or self.ending in TEXTS
        self.stem = within + (stem if is_known else self.base)
        """The path without the ending, where that says what the file is."""
        self.key = within + self.base.partition(".")[0]
        """The path up to the name's first dot: what WebDataset calls a key."""

    def head(self) -> bytes:
        """Its first bytes. Raises DamageError."""
        self._head = self._head or self._read(HEAD)
        return self._head

    def content(self) -> bytes:
        """All of it. Raises DamageError."""
        found = self._head + self._read(-1)
        if len(found) < self._size:
            raise DamageError("it breaks off")
        return found

    def place(self) -> Place | None:
        """Where its bytes lie as they are; None: nowhere."""
        return place_in(self._archive, self._offset, self._size) if self._archive else None

    def _read(self, count: int) -> bytes:
        try:
            return self._stream.read(count) if self._stream else b""
        except _DAMAGED as error:
            raise DamageError(_first_line(error)) from None

    def passed_over(self) -> str:
        """Why this is neither an image nor a caption; "" where it may be one. Raises DamageError."""
        if not self.is_file:
            return "a link or a device, not a file"
        if self.base.startswith("._"):
            return "a macOS resource file, not the image of that name"
        if self.base.startswith("."):
            return "a hidden file"
        if self.ending in TEXTS or self.ending in IMAGES or is_image(self.head()):
            return ""
        what = sniff(self.head())
        return "neither an image nor a caption: " + (
            what or (f"*.{self.ending}" if self.ending else "of no known format")
        )


class _StrictInfo(tarfile.TarInfo):
    """A header that is damaged in the midst of an archive is an error, not its end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None


def members(path: Path) -> Iterator[Member]:
    """The files of an archive, in its order. Each can be read until the next one is asked for.

    Raises:
        DamageError: The archive is damaged from here on.
    """
    try:
        with _open(path) as archive:
            plain = path if isinstance(archive.fileobj, BufferedReader) else None  # else it is decompressed
            for info in archive:
                if not info.isdir():
                    yield Member(info, archive.extractfile(info) if info.isfile() else None, plain)
    except _DAMAGED as error:
        raise DamageError(_first_line(error)) from None


def _open(path: Path) -> tarfile.TarFile:
    """The archive, so that what is not asked for is skipped; a compressed one is read from front to end."""
    try:
        return tarfile.open(path, "r:", tarinfo=_StrictInfo)
    except tarfile.ReadError:
        return tarfile.open(path, "r|*", tarinfo=_StrictInfo)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(":") or type(error).__name__
