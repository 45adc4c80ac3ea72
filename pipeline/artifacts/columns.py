"""Texts or encoded images, of which a training reads a few at random: laid out once as a flat file and mapped.

As Python strings 33 million captions fill more than 20 GB in every process. Here they lie in the page cache, which all
processes of a machine share: see `pipeline.artifacts.mapped`, whose scratch folders these are.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from pipeline.artifacts.atomic import ArtifactError, as_stored, read_json, write_atomically, write_json
from pipeline.artifacts.mapped import LAYOUT, LOCK

CONTENT, STARTS = "content", "starts.int64"
T = TypeVar("T", str, bytes)


class Column(Sequence[T]):
    """N texts or byte strings, read from the page cache. Other processes may have it: they map the files themselves.

    Args:
        folder: Where `map_bytes` laid them out.
        read: A value's bytes -> the value.
    """

    def __init__(self, folder: Path, read: Callable[[bytes], T]):
        self._folder = folder
        self._read: Callable[[bytes], T] = read
        self._starts = np.memmap(folder / STARTS, np.int64, mode="r")  # [N + 1]
        with (folder / CONTENT).open("rb") as file:
            empty = not self._starts[-1]  # which cannot be mapped
            self._bytes = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __reduce__(self) -> tuple[Any, ...]:
        return Column, (self._folder, self._read)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]  # IndexError, and counts from the end
        return self._read(self._bytes[self._starts[row] : self._starts[row + 1]])


def map_texts(folder: Path, made_of: dict[str, Any], texts: Callable[[], Iterable[str]]) -> Column[str]:
    """As `map_bytes`, for texts."""
    return Column(_laid_out(folder, made_of, lambda: map(str.encode, texts())), bytes.decode)


def map_bytes(folder: Path, made_of: dict[str, Any], values: Callable[[], Iterable[bytes]]) -> Column[bytes]:
    """Map values, laid out first unless they are. Only one process of a host lays out; the others wait for it.

    Args:
        folder: The scratch folder, such as `mapped.scratch` names it. It may be removed whenever nothing trains.
        made_of: What the values depend on, such as the hash of their table's manifest.
        values: Goes through the values; called only when they are laid out.

    Returns:
        The values in that order.
    """
    return Column(_laid_out(folder, made_of, values), bytes)


def _laid_out(folder: Path, made_of: dict[str, Any], values: Callable[[], Iterable[bytes]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made_of = as_stored(made_of)
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # gone with the process, however it ends
        if not _is_finished(folder, made_of):
            _lay_out(folder, made_of, values())
    return folder


def _is_finished(folder: Path, made_of: dict[str, Any]) -> bool:
    with contextlib.suppress(ArtifactError, KeyError, TypeError, OSError):
        layout = read_json(folder / LAYOUT)
        sizes = {name: (folder / name).stat().st_size for name in (CONTENT, STARTS)}
        return bool(layout["made_of"] == made_of and layout["sizes"] == sizes)
    return False


def _lay_out(folder: Path, made_of: dict[str, Any], values: Iterable[bytes]) -> None:
    """Both files, and `layout.json` last."""
    (folder / LAYOUT).unlink(missing_ok=True)
    end = 0
    with (
        write_atomically(folder / CONTENT) as content_path,
        write_atomically(folder / STARTS) as start_path,
        content_path.open("wb", buffering=1 << 20) as content_file,
        start_path.open("wb", buffering=1 << 20) as start_file,
    ):
        start_file.write(np.int64(0).tobytes())
        for value in values:
            end += content_file.write(value)
            start_file.write(np.int64(end).tobytes())
    sizes = {name: (folder / name).stat().st_size for name in (CONTENT, STARTS)}
    write_json(folder / LAYOUT, {"made_of": made_of, "sizes": sizes})
