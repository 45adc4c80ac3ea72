"""The tables of a library's database, and how rows get into them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import ArtifactError
from pipeline.retrieval.filters import FieldKind, kind_of

WAIT_S = 60.0
"""How long a change waits for another process's."""
OWN_FIELDS: dict[str, FieldKind] = {"path": "text", "size": "number", "date": "text"}
"""What is known of every image: its id, its bytes, and when its file was changed (ISO 8601, UTC)."""
_AT_ONCE = 500

SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE spaces (name TEXT PRIMARY KEY, identity TEXT);
CREATE TABLE fields (name TEXT PRIMARY KEY, kind TEXT);
CREATE TABLE images (slot INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, hash TEXT, size INTEGER,
    modified INTEGER, date TEXT, fields TEXT, version INTEGER);
CREATE INDEX images_hash ON images (hash);
CREATE INDEX images_version ON images (version);
CREATE TABLE deleted (slot INTEGER PRIMARY KEY, version INTEGER);
CREATE TABLE vectors (space TEXT, hash TEXT, vector BLOB, PRIMARY KEY (space, hash));
"""
"""A slot is a number that no other image ever gets. `version` is the change that last touched a row."""


@dataclass(frozen=True)
class Entry:
    """One image of a library."""

    id: str
    """Its path below the library's root, with `/`."""
    hash: str
    """BLAKE2b of its bytes, 128 bits, in hexadecimal."""
    size: int
    """Bytes."""
    modified: int = 0
    """When its file was changed, in nanoseconds since 1970."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Metadata of the user's own: texts, numbers, true or false."""

    @property
    def date(self) -> str:
        """When its file was changed, as 2024-05-31T12:00:00, UTC."""
        return str(np.datetime64(self.modified, "ns").astype("datetime64[s]"))

    @property
    def metadata(self) -> dict[str, Any]:
        """What filters see of it. The user's own fields take precedence over size and date."""
        return {"size": self.size, "date": self.date, **self.fields, "path": self.id}


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit; where the folder cannot be written to, it reads only."""
    try:
        if path.is_file() and not os.access(path.parent, os.W_OK):
            quoted = path.resolve().as_uri()
            return sqlite3.connect(f"{quoted}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        raise ArtifactError(f"{path}: not a library ({error})") from None
    return connection


def entry(row: Sequence[Any]) -> Entry:
    return Entry(row[0], row[1], row[2], row[3], json.loads(row[4]))


def put(change: sqlite3.Connection, entry: Entry, old: Sequence[Any] | None, version: int) -> None:
    fields = json.dumps(dict(entry.fields), ensure_ascii=False, allow_nan=False)
    facts = [entry.size, entry.modified, entry.date, fields, version]
    if old and old[1] == entry.hash:
        if old[2:] != (entry.size, entry.modified, fields):
            change.execute(
                "UPDATE images SET size = ?, modified = ?, date = ?, fields = ?, version = ? WHERE slot = ?",
                [*facts, old[0]],
            )
        return
    if old:
        delete(change, [entry.id], version)
    change.execute(
        "INSERT INTO images (id, hash, size, modified, date, fields, version) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [entry.id, entry.hash, *facts],
    )


def delete(change: sqlite3.Connection, ids: Collection[str], version: int) -> int:
    count = 0
    for some in parts(list(ids)):
        change.execute(f"INSERT INTO deleted SELECT slot, ? FROM images WHERE id IN ({marks(some)})", [version, *some])
        count += change.execute(f"DELETE FROM images WHERE id IN ({marks(some)})", some).rowcount
    return count


def check_fields(entry: Entry, kinds: dict[str, FieldKind]) -> None:
    """Note the kinds of an image's fields. Raises ArtifactError for a value of another kind, or of none."""
    for name, value in entry.fields.items():
        kind = kind_of(value)
        known = OWN_FIELDS.get(name) or kinds.setdefault(name, kind or "text")
        if name == "path" or not name or set('`"') & set(name) or kind is None:
            raise ArtifactError(f"{entry.id}: the field {name!r} cannot be {value!r}")
        if name in OWN_FIELDS:
            kinds.setdefault(name, known)
        if kind != known:
            raise ArtifactError(f"{entry.id}: the field {name!r} is {value!r}, of other images it is a {known}")


def json_path(name: str) -> str:
    escaped = name.replace('"', '\\"').replace("'", "''")
    return f"json_extract(fields, '$.\"{escaped}\"')"


def parts(values: Sequence[Any]) -> Iterator[list[Any]]:
    """A few at a time: SQLite takes a limited number of question marks."""
    for start in range(0, len(values), _AT_ONCE):
        yield list(values[start : start + _AT_ONCE])


def marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
