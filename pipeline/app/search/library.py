"""A library: images with metadata and vectors, to which images are added while others search.

It is one SQLite database, `library.sqlite`, in a folder of its own. An image's vectors are stored under the hash of its
content, so a file that is renamed, copied or removed and added again is not embedded anew. Images are not copied.

A change is one transaction. It is seen as a whole or not at all, by this process and by others, and whatever a method
has returned from is on the disk. A killed process loses at most what it was about to commit.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.app.search.library_names import DATABASE, find_library
from pipeline.app.search.library_rows import (
    OWN_FIELDS,
    SCHEMA,
    Entry,
    beside,
    connect,
    delete,
    entry,
    exchange,
    json_path,
    keep,
    keep_kinds,
    marks,
    parts,
    put,
)
from pipeline.app.search.own_encoder import OwnEncoder
from pipeline.artifacts import ArtifactError
from pipeline.retrieval.filters import FieldKind, as_sql, parse_filter

FORMAT = 1


class Library:
    """A collection of images that can be searched and changed. Any number of threads and processes may use it.

    `Library.open(name_or_path)` opens one; `Library.create(folder, root)` makes it. Embedding needs models and is done
    by `pipeline.app.search.indexing.Indexer`, which ends in `commit`. Reading and `remove` need none.

    Attributes:
        folder: Where the library lies.
    """

    def __init__(self, folder: Path):
        """Open the database. Raises ArtifactError when it is none, or damaged. `open` is the usual way."""
        self.folder = folder
        self._lock = threading.RLock()
        self._connection = connect(folder / DATABASE)
        try:
            settings = {name: json.loads(value) for name, value in self._rows("SELECT * FROM settings")}
        except (sqlite3.DatabaseError, ValueError) as error:
            raise ArtifactError(f"{folder / DATABASE}: not a library ({error})") from None
        if settings.get("format") != FORMAT:
            raise ArtifactError(f"{folder / DATABASE}: of format {settings.get('format')}, this program reads {FORMAT}")
        self._settings = settings
        self._cached: tuple[int, list[str], dict[str, int]] | None = None

    @classmethod
    def open(cls, where: str | Path) -> Library:
        """Open a library.

        Args:
            where: Its name, its folder, or the folder of images that holds it as `.cir`.

        Returns:
            The library.

        Raises:
            ArtifactError: There is none, or it is damaged.
        """
        found = find_library(where)
        if found is None:
            raise ArtifactError(f"{where}: there is no library of this name and none in a folder of this name")
        return cls(found)

    @classmethod
    def create(cls, folder: Path, root: Path, encoder: OwnEncoder | None = None) -> Library:
        """Open a library, or make an empty one.

        Args:
            folder: Where the library lies.
            root: The folder of the images.
            encoder: What they will be embedded with in the place of the parameters' models.

        Returns:
            The library. One that is there keeps its images and, once it has vectors, its encoder. `root` is what
            counts from now on.

        Raises:
            ArtifactError: What is there is no library.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with connect(folder / DATABASE) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in filter(str.strip, SCHEMA.split(";")):
                    connection.execute(statement)
                settings = {"format": FORMAT, "version": 0, "encoder": None, "key": os.urandom(8).hex()}
                rows = [(name, json.dumps(value)) for name, value in settings.items()]
                connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
        connection.close()
        library = cls(folder)
        if encoder != library.encoder and not library.spaces:
            library.keep_setting("encoder", _as_stored(encoder))
            library = cls(folder)
        relative = os.path.relpath(root.resolve(), folder.resolve())
        if library._settings.get("root") != relative:
            library.keep_setting("root", relative)
            library = cls(folder)
        return library

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    @property
    def root(self) -> Path:
        """The folder of the images."""
        return Path(os.path.realpath(self.folder / self._settings.get("root", ".")))

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that no other library has."""
        return self._settings["key"]

    @property
    def encoder(self) -> OwnEncoder | None:
        """What the images were embedded with in the place of the parameters' models."""
        own = self.setting("encoder")
        return OwnEncoder(own["name"], own["pretrained"]) if own else None

    @property
    def version(self) -> int:
        """A number that grows with every change, by whichever process."""
        return int(self._rows("SELECT value FROM settings WHERE name = 'version'")[0][0])

    @property
    def spaces(self) -> dict[str, dict[str, Any]]:
        """The spaces in which every image has a vector, and the identity of the model that embedded into each."""
        found = self._rows("SELECT name, identity FROM spaces ORDER BY name")
        return {name: json.loads(identity) for name, identity in found}

    @property
    def fields(self) -> dict[str, FieldKind]:
        """The fields that filters may name, and their kinds."""
        return OWN_FIELDS | dict(self._rows("SELECT name, kind FROM fields ORDER BY name"))

    def __len__(self) -> int:
        return self._rows("SELECT count(*) FROM images")[0][0]

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._slots()[1]

    @property
    def ids(self) -> list[str]:
        """The images' ids, in the order in which they were added. Of equal scores, the first one ranks first."""
        return self._slots()[0]

    @property
    def slot_of(self) -> Mapping[str, int]:
        """Id -> slot, of all images, in the order in which they were added."""
        return self._slots()[1]

    def entries(self, ids: Sequence[str] | None = None) -> list[Entry]:
        """What is known of images.

        Args:
            ids: Which ones; None: all.

        Returns:
            Their entries, in this order.

        Raises:
            ArtifactError: The library has no such image.
        """
        query = "SELECT id, hash, size, modified, fields FROM images"
        if ids is None:
            return [entry(row) for row in self._rows(f"{query} ORDER BY slot")]
        found = {}
        for some in parts(ids):
            for row in self._rows(f"{query} WHERE id IN ({marks(some)})", some):
                found[row[0]] = entry(row)
        missing = [image_id for image_id in ids if image_id not in found]
        if missing:
            raise ArtifactError(f"{self.folder}: {missing[0]!r} is no image of this library")
        return [found[image_id] for image_id in ids]

    def select(self, where: str) -> list[str]:
        """The ids of the images that a filter allows, in the library's order.

        Args:
            where: See `pipeline.retrieval.filters`.

        Raises:
            FilterError: It cannot be read, or names a field that there is not.
        """
        return [row[0] for row in self._selected("id", where)]

    def slots(self, where: str = "") -> np.ndarray:
        """As `select`, the images' slots [N], int64. A slot is a number that no other image ever has."""
        return np.array([row[0] for row in self._selected("slot", where)], dtype=np.int64)

    def _selected(self, column: str, where: str) -> list[Any]:
        condition, values = "1", list[Any]()
        if where:
            own = {"path": "id", "size": "size", "date": "date"}
            given = {name: json_path(name) for (name,) in self._rows("SELECT name FROM fields")}
            for name in own.keys() & given.keys() - {"path"}:
                given[name] = f"coalesce({given[name]}, {own[name]})"
            condition, values = as_sql(parse_filter(where, self.fields), own | given)
        return self._rows(f"SELECT {column} FROM images WHERE {condition} ORDER BY slot", values)

    def vectors(self, space: str, after: int = 0) -> Iterator[tuple[np.ndarray, list[str], np.ndarray]]:
        """The images that were added after a slot.

        Args:
            space: A space of the library.
            after: A slot.

        Yields:
            A few thousand at a time: slots [N], ids and float32 vectors [N, d], in order of the slots.
        """
        query = (
            "SELECT slot, id, vector FROM images JOIN vectors USING (hash) WHERE space = ? AND slot > ? "
            "ORDER BY slot LIMIT 4096"
        )
        while rows := self._rows(query, [space, after]):
            slots, ids, blobs = zip(*rows, strict=True)
            yield np.array(slots), list(ids), np.frombuffer(b"".join(blobs), "<f4").reshape(len(rows), -1)
            after = slots[-1]

    def dim(self, space: str) -> int:
        """d: the width of a space's vectors. Raises ArtifactError where it has none."""
        found = self._rows("SELECT length(vector) FROM vectors WHERE space = ? LIMIT 1", [space])
        if not found:
            raise ArtifactError(f"{self.folder}: there are no vectors in the space {space}")
        return found[0][0] // 4

    def without_vector(self, space: str, hashes: Iterable[str]) -> list[str]:
        """Those of the contents, by their hashes, that have no vector in a space yet."""
        wanted = list(dict.fromkeys(hashes))
        known: set[str] = set()
        for some in parts(wanted):
            query = f"SELECT hash FROM vectors WHERE space = ? AND hash IN ({marks(some)})"
            known.update(row[0] for row in self._rows(query, [space, *some]))
        return [one for one in wanted if one not in known]

    def store_for(self, space: str, identity: Mapping[str, Any]) -> str:
        """Where a model's vectors of a space are stored: in the space, or beside it until `commit` exchanges them."""
        return space if self.spaces.get(space) == identity else beside(space, identity)

    def store_vectors(self, space: str, hashes: Sequence[str], vectors: np.ndarray) -> None:
        """Keep vectors [N, d] of contents. No search finds them before `commit` names an image of the content."""
        rows = zip([space] * len(hashes), hashes, map(bytes, vectors.astype("<f4")), strict=True)
        with self._change() as change:
            change.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def commit(
        self,
        entries: Iterable[Entry] = (),
        gone: Collection[str] = (),
        spaces: Mapping[str, Any] | None = None,
        dropped: Collection[str] = (),
        encoder: OwnEncoder | None | Literal["kept"] = "kept",
    ) -> None:
        """Add, update and remove images, and exchange models, in one transaction.

        Args:
            entries: Images to add, or to update by their ids. A new content gets a new slot. Their vectors are stored.
            gone: Ids to remove; unknown ones are ignored.
            spaces: Spaces that the library has from now on: name -> identity of the model. Its vectors take the place
                of the space's where they were stored beside them, see `store_for`.
            dropped: Spaces that it has no more.
            encoder: What its images are embedded with in the place of the parameters' models.

        Raises:
            ArtifactError: An image has no vector in a space; or a field has another kind of value than before.
        """
        with self._change() as change:
            version = self._next_version(change)
            delete(change, gone, version)
            images = list(entries)
            for one in images:
                old = change.execute("SELECT slot, hash, size, modified, fields FROM images WHERE id = ?", [one.id])
                put(change, one, old.fetchone(), version)
            keep_kinds(change, images, version)
            for name in dropped:
                change.execute("DELETE FROM spaces WHERE name = ?", [name])
                change.execute("DELETE FROM vectors WHERE space = ?", [name])
            for name, identity in (spaces or {}).items():
                change.execute("INSERT OR REPLACE INTO spaces VALUES (?, ?)", [name, json.dumps(identity)])
                exchange(change, name, identity)
            if encoder != "kept":
                keep(change, "encoder", _as_stored(encoder))
            self._check_vectors(change, version, list(spaces or ()))

    def remove(self, ids: Collection[str]) -> int:
        """Remove images from the library; their files stay.

        Args:
            ids: Which ones.

        Returns:
            How many were there.
        """
        with self._change() as change:
            return delete(change, ids, self._next_version(change))

    def changes_since(self, version: int) -> tuple[int, list[int], list[int]]:
        """What a follower that has seen a version must do to catch up: the version now, slots to upsert, to delete."""
        with self._lock:
            now = self.version
            upserted = self._rows("SELECT slot FROM images WHERE version > ? ORDER BY slot", [version])
            deleted = self._rows("SELECT slot FROM deleted WHERE version > ?", [version])
        return now, [row[0] for row in upserted], [row[0] for row in deleted]

    def rows_of_slots(self, space: str, slots: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray, list[Entry]]]:
        """Some hundred slots at a time, their vectors [N, d] and entries; a slot without an image is left out."""
        for some in parts(slots):
            query = (
                "SELECT id, hash, size, modified, fields, slot, vector FROM images JOIN vectors USING (hash) "
                f"WHERE space = ? AND slot IN ({marks(some)})"
            )
            if rows := self._rows(query, [space, *some]):
                vectors = np.frombuffer(b"".join(row[6] for row in rows), "<f4").reshape(len(rows), -1)
                yield [row[5] for row in rows], vectors, [entry(row[:5]) for row in rows]

    def setting(self, name: str) -> Any:
        """A value that `keep_setting` has stored; None: none."""
        found = self._rows("SELECT value FROM settings WHERE name = ?", [name])
        return json.loads(found[0][0]) if found else None

    def keep_setting(self, name: str, value: Any) -> None:
        """Store a value beside the images, such as which model has embedded them."""
        with self._change() as change:
            keep(change, name, value)

    def _slots(self) -> tuple[list[str], dict[str, int]]:
        with self._lock:
            version = self.version
            if self._cached is None or self._cached[0] != version:
                rows = self._rows("SELECT id, slot FROM images ORDER BY slot")
                self._cached = version, [row[0] for row in rows], dict(rows)
            return self._cached[1:]

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises ArtifactError where the library cannot be written to."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise ArtifactError(f"{self.folder / DATABASE}: cannot be changed: {error}") from None

    def _next_version(self, change: sqlite3.Connection) -> int:
        version = self.version + 1
        change.execute("UPDATE settings SET value = ? WHERE name = 'version'", [str(version)])
        return version

    def _check_vectors(self, change: sqlite3.Connection, version: int, new: list[str]) -> None:
        query = (
            f"SELECT name, id FROM spaces CROSS JOIN images WHERE (images.version = ? OR name IN ({marks(new)})) "
            "AND NOT EXISTS (SELECT 1 FROM vectors WHERE space = name AND vectors.hash = images.hash)"
        )
        missing = change.execute(query, [version, *new]).fetchone()
        if missing:
            raise ArtifactError(f"{self.folder}: {missing[1]!r} has no vector in the space {missing[0]}")


def _as_stored(encoder: OwnEncoder | None) -> dict[str, str] | None:
    return asdict(encoder) if encoder else None
