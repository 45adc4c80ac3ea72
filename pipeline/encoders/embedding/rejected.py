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
    """The rejected rows of one shard set, in the reader's order. There is no file while there are none."""

    def __init__(self, path: Path, rows: list[dict[str, Any]]):
        self._path, self._rows, self._saved = path, rows, None

    @classmethod
    def load(cls, folder: str | Path) -> Rejections:
        """What an earlier run left in `folder`. Raises ArtifactError when it is damaged."""
        path = Path(folder) / REJECTED
        return cls(path, _read(path))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last(self) -> dict[str, Any]:
        return self._rows[-1]

    def add(self, entry: dict[str, Any]) -> None:
        self._rows.append(entry)

    def resume_after(self, shards: Sequence[int], rows_per_slice: int, total: int) -> tuple[int, int]:
        """The row to go on with behind finished shards of so many rows, and how many of the shards that leaves.

        A slice of which every row was rejected has no shard. What was rejected later is forgotten.
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
        """Write the file, if there is anything new to write; none for no rows."""
        if len(self._rows) == self._saved:
            return
        if not self._rows:
            self._path.unlink(missing_ok=True)
            return
        with write_atomically(self._path) as aside:
            pq.write_table(pa.Table.from_pylist(self._rows, SCHEMA), aside)
        self._saved = len(self._rows)


def rejected_images(folder: str | Path) -> set[str]:
    """Ids of the images whose rows `folder` lacks."""
    return {entry["image_id"] for entry in _read(Path(folder) / REJECTED)}


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return pq.read_table(path, schema=SCHEMA).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not readable as Parquet ({error})") from None
