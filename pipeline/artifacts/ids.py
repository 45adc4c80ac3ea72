"""Ids: how they are made of paths, and a check that none comes twice among tens of millions."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

LARGEST_RUN = 1 << 22
"""Runs are merged up to this many ids, so that merging never needs more than a small part of the memory again."""


class IdError(ValueError):
    """A path that makes no id, or an id that comes twice."""


def id_of(source: str, path: str, suffix: str = "") -> str:
    """The id of something that lies at `path` below the folder of a source.

    Different paths have different ids: folders, every dot of a name and the ending stay. Only `suffix` goes, one
    ending that all paths of a kind share; a path with another ending keeps it.

    Args:
        source: The source's name, which the id begins with.
        path: Relative to the source's folder, with slashes.
        suffix: An ending to leave out, such as ".tar".

    Raises:
        IdError: The path is empty, leads out of the folder, or is not UTF-8.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or ".." in parts:
        raise IdError(f"{path!r} is no path within the folder")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise IdError(f"{ascii(path)}: the name is not UTF-8") from None
    name = "/".join(parts)
    return f"{source}/{name.removesuffix(suffix) if len(parts[-1]) > len(suffix) else name}"


@dataclass(frozen=True)
class _Run:
    """Hashes in ascending order, and the row that each was met in."""

    hashes: np.ndarray
    rows: np.ndarray


class IdRegister:
    """The ids met so far, each as 64 bits of its hash and 32 bits of its row: 400 MB for 33 million ids.

    Equal ids are always noticed. That two different ones among n are taken for equal has a probability of n^2 / 2^65,
    one in 34,000 for 33 million. Where a repetition is one rejected row, that is the price. Where it ends a run, the
    ids themselves are compared first: see `UniqueIds`.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._next = 0

    def __len__(self) -> int:
        """Number of different ids."""
        return self._next

    def add(self, ids: Sequence[str]) -> np.ndarray:
        """Remember ids, those in front first.

        Args:
            ids: N of them. More at once are quicker.

        Returns:
            int64 [N]: -1 for an id that is new, else the row of the one that it repeats. New ids get the next rows,
            beginning at 0; repetitions get none.
        """
        hashes = np.frombuffer(b"".join(map(_digest, ids)), np.uint64)
        earlier = self._find(hashes)
        unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        is_new = (earlier < 0) & (first[inverse] == np.arange(len(hashes)))
        numbers = np.where(is_new, self._next + np.cumsum(is_new) - 1, earlier)
        repeated_here = (earlier < 0) & ~is_new
        found = np.where(is_new, -1, earlier)
        found[repeated_here] = numbers[first[inverse]][repeated_here]
        kept = is_new[first]
        if kept.any():
            self._append(_Run(unique[kept], numbers[first[kept]].astype(np.uint32)))
        self._next += int(is_new.sum())
        return found

    def _find(self, hashes: np.ndarray) -> np.ndarray:
        found = np.full(len(hashes), -1, np.int64)
        for run in self._runs:
            places = np.searchsorted(run.hashes, hashes).clip(max=len(run.hashes) - 1)
            same = run.hashes[places] == hashes
            found[same] = run.rows[places[same]]
        return found

    def _append(self, run: _Run) -> None:
        """Runs of like length become one, so that there are never many."""
        while self._runs and len(self._runs[-1].hashes) <= len(run.hashes) < LARGEST_RUN:
            last = self._runs.pop()
            hashes = np.concatenate([last.hashes, run.hashes])
            order = np.argsort(hashes, kind="stable")
            run = _Run(hashes[order], np.concatenate([last.rows, run.rows])[order])
        self._runs.append(run)


class UniqueIds:
    """Checks that no id of a table comes twice while the table is written.

    Args:
        column: The ids' column, for the message.
        written: Reads all ids back that have been checked, in order. It is asked only when two hashes are equal.
    """

    def __init__(self, column: str, written: Callable[[], Iterable[str]]):
        self._column, self._written = column, written
        self._register, self._rows = IdRegister(), 0

    def check(self, ids: Sequence[str]) -> None:
        """Check the ids of the table's next rows.

        Raises:
            IdError: An id comes twice. Names it and both rows, which count from 0.
        """
        found = self._register.add(ids)
        for place in np.flatnonzero(found >= 0).tolist():
            before = enumerate(itertools.chain(self._written(), ids[:place]))
            first = next((row for row, one in before if one == ids[place]), None)
            if first is not None:
                raise IdError(f"rows {first} and {self._rows + place} have the same {self._column} {ids[place]!r}")
        self._rows += len(ids)


def _digest(value: str) -> bytes:
    return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
