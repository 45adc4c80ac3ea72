"""Tens of millions of texts, of which a training reads a few at random: laid out once as a flat file and mapped.

As Python strings 33 million captions fill more than 20 GB in every process. Here they lie in the page cache, which all
processes of a machine share: see `pipeline.artifacts.mapped`, whose scratch folders these are.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from pipeline.artifacts.atomic import ArtifactError, as_stored, read_json, write_atomically, write_json
from pipeline.artifacts.mapped import LAYOUT, LOCK

TEXTS, STARTS = "texts.utf8", "starts.int64"


class TextColumn(Sequence[str]):
    """N texts, read from the page cache.

    Args:
        folder: Where `map_texts` laid them out.
    """

    def __init__(self, folder: Path):
        self._starts = np.memmap(folder / STARTS, np.int64, mode="r")  # [N + 1]
        with (folder / TEXTS).open("rb") as file:
            empty = not self._starts[-1]  # which cannot be mapped
            self._bytes = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]  # IndexError, and counts from the end
        return bytes(self._bytes[self._starts[row] : self._starts[row + 1]]).decode()


def map_texts(folder: Path, made_of: dict[str, Any], texts: Callable[[], Iterable[str]]) -> TextColumn:
    """Map texts, laid out first unless they are. Only one process of a host lays out; the others wait for it.

    Args:
        folder: The scratch folder, such as `mapped.scratch` names it. It may be removed whenever nothing trains.
        made_of: What the texts depend on, such as the hash of their table's manifest.
        texts: Goes through the texts; called only when they are laid out.

    Returns:
        The texts in that order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made_of = as_stored(made_of)
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # gone with the process, however it ends
        if not _is_finished(folder, made_of):
            _lay_out(folder, made_of, texts())
        return TextColumn(folder)


def _is_finished(folder: Path, made_of: dict[str, Any]) -> bool:
    with contextlib.suppress(ArtifactError, KeyError, TypeError, OSError):
        layout = read_json(folder / LAYOUT)
        sizes = {name: (folder / name).stat().st_size for name in (TEXTS, STARTS)}
        return bool(layout["made_of"] == made_of and layout["sizes"] == sizes)
    return False


def _lay_out(folder: Path, made_of: dict[str, Any], texts: Iterable[str]) -> None:
    """Both files, and `layout.json` last."""
    (folder / LAYOUT).unlink(missing_ok=True)
    end = 0
    with (
        write_atomically(folder / TEXTS) as text_path,
        write_atomically(folder / STARTS) as start_path,
        text_path.open("wb", buffering=1 << 20) as text_file,
        start_path.open("wb", buffering=1 << 20) as start_file,
    ):
        start_file.write(np.int64(0).tobytes())
        for text in texts:
            end += text_file.write(text.encode())
            start_file.write(np.int64(end).tobytes())
    sizes = {name: (folder / name).stat().st_size for name in (TEXTS, STARTS)}
    write_json(folder / LAYOUT, {"made_of": made_of, "sizes": sizes})
