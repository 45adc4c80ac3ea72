"""`rejected.parquet`: what was left out beside a table, and why; counted by kind of reason for the console."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts.atomic import ArtifactError

REJECTED = "rejected.parquet"
_REQUIRED = ("image_id", "reason")
_BATCH = 4_096
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PATH = re.compile(r"(?<![\w/.])[\w.~-]*/[^\s,;:()]+|\b[\w.-]+\.[A-Za-z]\w*\b")
_NUMBER = re.compile(r"\d[\d.,]*\d|\d")
_NAMED = 5
"""So many kinds of reasons are printed after a stage."""


@dataclass(frozen=True)
class Rejected:
    """One thing that was left out."""

    id: str
    """The row's id, or the image's where rows have none."""
    reason: str


@dataclass
class ReasonCount:
    """How often one kind of reason occurs, and its first offender."""

    kind: str
    count: int
    first: Rejected


def find_rejections(place: Path) -> list[Path]:
    """The files that list rejections: `place` itself, or all below it, in order of their paths.

    Raises:
        ArtifactError: There is nothing at `place`.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise ArtifactError(f"{place}: no such file or folder")
    return sorted(place.rglob(REJECTED))


def read_rejections(path: Path) -> Iterator[Rejected]:
    """The rows of one file, a few at a time.

    Raises:
        ArtifactError: The file is damaged or lists no rejections.
    """
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        missing = [name for name in _REQUIRED if name not in names]
        if missing:
            raise ArtifactError(f"{path}: lists no rejections: there is no column {missing[0]!r}")
        columns = [*_REQUIRED, *(["id"] if "id" in names else [])]
        for batch in file.iter_batches(_BATCH, columns=columns):
            for row in batch.to_pylist():
                yield Rejected(row.get("id") or row["image_id"] or "", row["reason"] or "")
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not readable as Parquet ({str(error).splitlines()[0]})") from None


def kind_of_reason(reason: str) -> str:
    """A reason without what is particular to one row: quoted names and paths become '...', numbers become N."""
    return _NUMBER.sub("N", _PATH.sub("...", _QUOTED.sub("...", reason)))


def count_reasons(rejections: Iterable[Rejected]) -> list[ReasonCount]:
    """Counts by kind of reason, the most frequent first."""
    counts: dict[str, ReasonCount] = {}
    for one in rejections:
        kind = kind_of_reason(one.reason)
        counts.setdefault(kind, ReasonCount(kind, 0, one)).count += 1
    return sorted(counts.values(), key=lambda found: (-found.count, found.kind))


def printable(text: str) -> str:
    """A file's name or a reason for a console: what would break a line or steer a terminal is escaped."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def summarise(rejections: Iterable[Rejected], of: str = "rows") -> list[str]:
    """What a command prints after its work: one line a kind of reason, at most a few. Nothing where all was used.

    Args:
        rejections: What was left out.
        of: What they are, in the plural.
    """
    counts = count_reasons(rejections)
    if not counts:
        return []
    lines = [f"{sum(found.count for found in counts)} {of} left out:"]
    for found in counts[:_NAMED]:
        lines.append(f"  {found.count} x {printable(found.first.reason)} (first: {printable(found.first.id)})")
    more = sum(found.count for found in counts[_NAMED:])
    return [*lines, f"  {more} x other reasons"] if more else lines
