"""The tables of a library's database, and how rows get into them."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import ArtifactError
from pipeline.retrieval.filters import FieldKind, is_field_name, kind_of

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
    """Add or update an image. Raises ArtifactError for a field that there cannot be."""
    for name, value in entry.fields.items():
        _kind(entry, name, value)
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


def keep(change: sqlite3.Connection, name: str, value: Any) -> None:
    change.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", [name, json.dumps(value)])


def beside(space: str, identity: Mapping[str, Any]) -> str:
    """Where vectors of another model wait until all images have one."""
    return f"{space} {hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()}"


def exchange(change: sqlite3.Connection, space: str, identity: Mapping[str, Any]) -> None:
    """Let the vectors that wait beside a space, if any do, take the place of its own."""
    waiting = beside(space, identity)
    if change.execute("SELECT 1 FROM vectors WHERE space = ? LIMIT 1", [waiting]).fetchone():
        others = "space = ? OR (space > ? AND space < ? AND space != ?)"  # those of a model that came to no end, too
        change.execute(f"DELETE FROM vectors WHERE {others}", [space, f"{space} ", f"{space}!", waiting])
        change.execute("UPDATE vectors SET space = ? WHERE space = ?", [space, waiting])


def keep_kinds(change: sqlite3.Connection, entries: Sequence[Entry], version: int) -> None:
    """Note the kinds of the fields of images that a change has put.

    Raises ArtifactError for a value of another kind than images have that the change left alone.
    """
    known, new = dict[str, FieldKind](change.execute("SELECT name, kind FROM fields")), dict[str, FieldKind]()
    for one in entries:
        for name, value in one.fields.items():
            kind = _kind(one, name, value)
            expected = OWN_FIELDS.get(name) or new.get(name)
            if expected is None and known.get(name, kind) != kind and _is_of_others(change, name, version):
                expected = known[name]
            if expected not in (None, kind):
                raise ArtifactError(f"{one.id}: the field {name!r} is {value!r}, of other images it is a {expected}")
            new[name] = kind
    change.executemany("INSERT OR REPLACE INTO fields VALUES (?, ?)", new.items())


def _kind(one: Entry, name: str, value: object) -> FieldKind:
    kind = kind_of(value)
    if kind is None or not is_field_name(name):
        raise ArtifactError(f"{one.id}: the field {name[:150]!r} cannot be {repr(value)[:100]}")
    return kind


def _is_of_others(change: sqlite3.Connection, name: str, version: int) -> bool:
    query = f"SELECT 1 FROM images WHERE version != ? AND {json_path(name)} IS NOT NULL LIMIT 1"
    return change.execute(query, [version]).fetchone() is not None


def json_path(name: str) -> str:
    escaped = name.replace("'", "''")
    return f"json_extract(fields, '$.\"{escaped}\"')"


def parts(values: Sequence[Any]) -> Iterator[list[Any]]:
    """A few at a time: SQLite takes a limited number of question marks."""
    for start in range(0, len(values), _AT_ONCE):
        yield list(values[start : start + _AT_ONCE])


def marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
