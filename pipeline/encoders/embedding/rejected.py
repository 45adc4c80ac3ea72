"""`rejected.parquet`: the rows of a job that could not be encoded, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts import ArtifactError, write_atomically

REJECTED = "rejected.parquet"
SCHEMA = pa.schema([("row", pa.int64()), ("id", pa.string()), ("image_id", pa.string()), ("reason", pa.string())])


class Rejections:
    """The rejected rows of one shard set, in the reader's order. There is no file while there are none.

    Args:
        path: The file.
        rows: What it holds.
    """

    def __init__(self, path: Path, rows: list[dict[str, Any]]):
        self._path, self._rows = path, rows
        self._saved: int | None = None
        """Rows at the last save of this run."""

    @classmethod
    def load(cls, folder: str | Path) -> Rejections:
        """What an earlier run left in a folder.

        Raises:
            ArtifactError: The file is damaged.
        """
        path = Path(folder) / REJECTED
        return cls(path, _read(path))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last(self) -> dict[str, Any]:
        """The entry that was added last."""
        return self._rows[-1]

    def add(self, entry: dict[str, Any]) -> None:
        """Add a row's `row`, `id`, `image_id` and `reason`. Nothing is written yet."""
        self._rows.append(entry)

    def resume_after(self, shards: Sequence[int], rows_per_slice: int, total: int) -> tuple[int, int]:
        """Find where to go on after a killed run, and forget what was rejected behind that place.

        Args:
            shards: The rows of each finished shard. A slice of which every row was rejected has none.
            rows_per_slice: Rows of the reader that make a slice.
            total: Rows of the reader.

        Returns:
            The first row to encode, and how many of the finished shards to keep.
        """
        rejected = Counter(entry["row"] // rows_per_slice for entry in self._rows)
        slices = kept = 0
        for rows in shards:
            while rejected[slices] == rows_per_slice:
                slices += 1
            if rows != min(rows_per_slice, total - slices * rows_per_slice) - rejected[slices]:
                break
            slices, kept = slices + 1, kept + 1
        self._rows = [entry for entry in self._rows if entry["row"] < slices * rows_per_slice]
        return min(slices * rows_per_slice, total), kept

    def save(self) -> None:
        """Write the file if there is anything new; remove it if there are no rows."""
        if len(self._rows) == self._saved:
            return
        if not self._rows:
            self._path.unlink(missing_ok=True)
            return
        with write_atomically(self._path) as aside:
            pq.write_table(pa.Table.from_pylist(self._rows, SCHEMA), aside)
        self._saved = len(self._rows)


def rejected_images(folder: str | Path) -> set[str]:
    """Ids of the images whose rows a shard set lacks, because they were rejected."""
    return {entry["image_id"] for entry in _read(Path(folder) / REJECTED)}


def _read(path: Path) -> list[dict[str, Any]]:
    """The entries of a file; none for no file."""
    if not path.is_file():
        return []
    try:
        return pq.read_table(path, schema=SCHEMA).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not readable as Parquet ({error})") from None
