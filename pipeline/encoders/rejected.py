"""`rejected.parquet`: the rows of a job that could not be encoded, and why."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts import ArtifactError, write_atomically

REJECTED = "rejected.parquet"
SCHEMA = pa.schema([("row", pa.int64()), ("id", pa.string()), ("image_id", pa.string()), ("reason", pa.string())])


class Rejections:
    """The rejected rows of one shard set, in the reader's order. There is no file while there are none."""

    def __init__(self, path: Path, rows: list[dict]):
        self._path, self._rows, self._saved = path, rows, None

    @classmethod
    def load(cls, folder: str | Path) -> Rejections:
        """What an earlier run left in `folder`. Raises ArtifactError when it is damaged."""
        path = Path(folder) / REJECTED
        return cls(path, _read(path))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def last(self) -> dict:
        return self._rows[-1]

    def add(self, row: int, id: str, image_id: str, reason: str) -> None:
        self._rows.append({"row": row, "id": id, "image_id": image_id, "reason": reason})

    def resume_after(self, accepted: int) -> int:
        """The row to go on with after `accepted` rows were encoded; what was rejected later is forgotten."""
        position = accepted
        kept = []
        for entry in self._rows:
            if not accepted or entry["row"] >= position:
                break
            kept.append(entry)
            position += 1
        self._rows = kept
        return position

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


def _read(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    try:
        return pq.read_table(path, schema=SCHEMA).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not readable as Parquet ({error})") from None
