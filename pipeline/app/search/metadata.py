"""Metadata beside images: a table with a row an image, in the layout of Hugging Face's image folders."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv, json

from pipeline.artifacts import ArtifactError
from pipeline.retrieval.filters import is_field_name

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
KEY = "file_name"
"""The column with the image's path, relative to the table's folder of images."""


def find_metadata(folder: Path) -> Path | None:
    """The metadata file in a folder of images. Raises ArtifactError where there are two."""
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise ArtifactError(f"{found[1]}: there is {found[0].name}, too; keep one, or name it with --metadata")
    return found[0] if found else None


def read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Read a table of metadata.

    Args:
        path: CSV, JSONL or Parquet, with a column `file_name`. The other columns hold texts, numbers, dates, true or
            false. Dates become texts such as 2024-05-31T12:00:00, which sort by time.

    Returns:
        Id -> field -> value. An empty cell is left out.

    Raises:
        ArtifactError: It cannot be read, has no such column, names an image twice, or holds something else.
    """
    table = _read(path)
    if KEY not in table.column_names:
        raise ArtifactError(f"{path}: there is no column {KEY!r}, which names the images")
    if len(set(table.column_names)) < len(table.column_names):
        raise ArtifactError(f"{path}: two columns have the same name")
    for name in table.column_names:
        if name != KEY and not is_field_name(name):
            raise ArtifactError(f"{path}: a column cannot be called {name[:150]!r}")
        if name != KEY and not _is_plain(table[name].type):
            raise ArtifactError(f"{path}: column {name!r} holds {table[name].type}, not texts, numbers or dates")
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(table.to_pylist(), 1):
        name = row.pop(KEY)
        if not isinstance(name, str) or not name:
            raise ArtifactError(f"{path}: row {number}: {KEY} is {name!r}, not a file's name")
        name = name.removeprefix("./")
        if name in found:
            raise ArtifactError(f"{path}: row {number}: {name!r} occurs twice")
        fields = {field: _value(value) for field, value in row.items() if value is not None}
        found[name] = {field: value for field, value in fields.items() if value == value}  # a NaN is an empty cell
    return found


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix == ".csv":
            read = csv.ReadOptions(use_threads=False)
            convert = csv.ConvertOptions(column_types={KEY: pa.string()}, strings_can_be_null=True, null_values=[""])
            return csv.read_csv(path, read, convert_options=convert)
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".jsonl":
            return json.read_json(path)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    raise ArtifactError(f"{path}: metadata is a .csv, .jsonl or .parquet file")


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(test(kind) for test in (*tests, types.is_decimal, types.is_date, types.is_timestamp, types.is_null))


def _value(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        if value.tzinfo:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        return value.isoformat(timespec="seconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return value if isinstance(value, str | int | float) else float(value)
