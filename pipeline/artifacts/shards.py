"""Shard sets: a folder of Parquet shards and the manifest that vouches for them."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts.atomic import (
    ArtifactError,
    as_stored,
    final_path,
    read_json,
    sha256_file,
    write_atomically,
    write_json,
)
from pipeline.artifacts.ids import IdError
from pipeline.artifacts.table_ids import TableIds

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    name: str
    rows: int
    sha256: str

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Shard:
        """Raises TypeError or ValueError for an entry that is not a shard, or names a file elsewhere."""
        shard = cls(**entry)
        if not (isinstance(shard.name, str) and isinstance(shard.rows, int) and isinstance(shard.sha256, str)):
            raise TypeError(f"{entry} is not a shard")
        if shard.name != Path(shard.name).name:
            raise ValueError(f"shard {shard.name!r} is not a file of this folder")
        return shard


@dataclass(frozen=True)
class Manifest:
    """What a shard set holds and what made it."""

    identity: dict[str, Any]
    shards: tuple[Shard, ...]
    schema: str

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "schema": self.schema,
            "identity": self.identity,
            "rows": self.rows,
            "shards": [{"name": s.name, "rows": s.rows, "sha256": s.sha256} for s in self.shards],
        }


def _shard_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


class ShardWriter:
    """Writes rows as shards of `rows_per_shard`, each atomically, and the manifest last. No id may come twice.

    Args:
        folder: The shard set's folder.
        schema: The rows' schema.
        identity: What makes the rows.
        rows_per_shard: Rows of every shard but the last.
        resume: Keep the shards that an earlier run with the *same identity* finished; `rows_done` says how
            many rows to skip. Anything else in the folder is removed.
        companions: Files of the caller's that belong to the shards, kept as long as any shard is.

    Raises:
        ArtifactError: There is a folder among the files.
    """

    JOURNAL = ".journal.json"

    def __init__(
        self,
        folder: str | Path,
        schema: pa.Schema,
        identity: dict[str, Any],
        rows_per_shard: int = 10_000,
        resume: bool = False,
        companions: Collection[str] = (),
    ):
        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard {rows_per_shard} is not positive")
        self.folder = Path(folder)
        self.schema, self.identity, self.rows_per_shard = schema, as_stored(identity), rows_per_shard
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shards = self._finished_shards() if resume else []
        keep = {shard.name for shard in self._shards} | (set(companions) if self._shards else set())
        self._write_journal()  # before the manifest goes, which may be all that vouches for the shards
        for path in self.folder.iterdir():
            if path.is_dir():
                raise ArtifactError(f"{path}: a folder among the files of a shard set")
            if path.name not in keep and path.name != self.JOURNAL:
                path.unlink()
        self._buffer: list[pa.Table] = []
        self._ids = TableIds(schema, self._written)

    @property
    def rows_done(self) -> int:
        """Rows in finished shards."""
        return sum(self.shards_done)

    @property
    def shards_done(self) -> list[int]:
        """The rows of every finished shard."""
        return [shard.rows for shard in self._shards]

    def keep_shards(self, count: int) -> None:
        """Forget the finished shards behind the first `count`."""
        for shard in self._shards[count:]:
            (self.folder / shard.name).unlink()
        self._shards = self._shards[:count]
        self._ids.forget()
        self._write_journal()

    def _journal(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "schema": str(self.schema),
            "rows_per_shard": self.rows_per_shard,
            "shards": [{"name": s.name, "rows": s.rows, "sha256": s.sha256} for s in self._shards],
        }

    def _write_journal(self) -> None:
        write_json(self.folder / self.JOURNAL, self._journal())

    def _finished_shards(self) -> list[Shard]:
        """The full shards that are there and whole, up to the first that is not."""
        for name in (self.JOURNAL, MANIFEST):
            try:
                journal = read_json(self.folder / name)
                same = journal["identity"] == self.identity and journal["schema"] == str(self.schema)
                shards = [Shard.from_json(entry) for entry in journal["shards"]]
            except (ArtifactError, KeyError, TypeError, ValueError):
                continue
            finished = (
                itertools.takewhile(lambda numbered: self._is_finished(*numbered), enumerate(shards)) if same else ()
            )
            return [shard for _, shard in finished]
        return []

    def _is_finished(self, number: int, shard: Shard) -> bool:
        path = self.folder / shard.name
        named = shard.name == _shard_name(number)
        return named and self._is_whole(shard.rows) and path.is_file() and sha256_file(path) == shard.sha256

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Append rows; whole shards are flushed to disk as they fill.

        Raises:
            ArtifactError: The rows have another schema, or an id comes twice; names it and both rows.
        """
        table = self._checked(rows)
        try:
            self._ids.check(table)
        except IdError as error:
            raise ArtifactError(f"{final_path(self.folder)}: {error}") from None
        self._append(table)

    def _written(self, columns: list[str]) -> Iterator[pa.Table]:
        """Columns of all rows so far: those in finished shards, then those that wait for theirs."""
        for shard in self._shards:
            yield pq.read_table(self.folder / shard.name, columns=columns)
        yield from self._buffer

    def _checked(self, rows: pa.Table | pa.RecordBatch) -> pa.Table:
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        if not table.schema.equals(self.schema):
            raise ArtifactError(
                f"{self.folder}: rows have schema\n{table.schema}\nbut the shard set has\n{self.schema}"
            )
        return table.replace_schema_metadata(self.schema.metadata)

    def _is_whole(self, rows: int) -> bool:
        """Whether a shard of so many rows is finished and not the rest that `close` flushes."""
        return rows == self.rows_per_shard

    def _append(self, table: pa.Table) -> None:
        self._buffer.append(table)
        while sum(part.num_rows for part in self._buffer) >= self.rows_per_shard:
            pending = pa.concat_tables(self._buffer)
            self._flush(pending.slice(0, self.rows_per_shard))
            rest = pending.slice(self.rows_per_shard)
            self._buffer = [rest] if rest.num_rows else []

    def _flush(self, table: pa.Table) -> None:
        name = _shard_name(len(self._shards))
        with write_atomically(self.folder / name) as aside:
            pq.write_table(
                table.combine_chunks(), aside, compression="zstd", use_dictionary=_with_dictionary(self.schema)
            )
        self._shards.append(Shard(name, table.num_rows, sha256_file(self.folder / name)))
        self._write_journal()

    def close(self) -> Manifest:
        """Flush what is left; the journal becomes the manifest."""
        if self._buffer or not self._shards:
            self._flush(pa.concat_tables(self._buffer) if self._buffer else self.schema.empty_table())
            self._buffer = []
        manifest = Manifest(self.identity, tuple(self._shards), str(self.schema))
        write_json(self.folder / self.JOURNAL, manifest.as_json())
        # One step: a kill leaves no journal beside a manifest.
        os.replace(self.folder / self.JOURNAL, self.folder / MANIFEST)
        return manifest


class TableShardWriter(ShardWriter):
    """Writes every table that it is given as a shard of its own, of at most `rows_per_shard` rows."""

    def _is_whole(self, rows: int) -> bool:
        return 0 < rows <= self.rows_per_shard

    def _append(self, table: pa.Table) -> None:
        self._flush(table)


def _with_dictionary(schema: pa.Schema) -> bool | list[str]:
    """Columns worth a dictionary.

    Hardly a number of a vector comes twice, and looking each up makes reading five times slower.
    """
    others = [field.name for field in schema if not _is_vector(field.type)]
    return others if len(others) < len(schema) else True


def _is_vector(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and pa.types.is_floating(kind.value_type)


def write_table(
    folder: str | Path,
    rows: pa.Table | Iterable[pa.RecordBatch],
    identity: dict[str, Any],
    rows_per_shard: int = 10_000,
) -> Manifest:
    """Write a whole shard set atomically: the folder appears only when it is complete.

    Raises ArtifactError when `rows` is an empty iterable (its schema is unknown).
    """
    batches = rows.to_batches() if isinstance(rows, pa.Table) else iter(rows)
    schema = rows.schema if isinstance(rows, pa.Table) else None
    with write_atomically(folder) as aside:
        writer = ShardWriter(aside, schema, identity, rows_per_shard) if schema is not None else None
        for batch in batches:
            writer = writer or ShardWriter(aside, batch.schema, identity, rows_per_shard)
            writer.write(batch)
        if writer is None:
            raise ArtifactError(f"{folder}: no rows to write")
        return writer.close()


def finished_set(folder: str | Path, schema: pa.Schema, identity: dict[str, Any]) -> Manifest | None:
    """The manifest of a complete, undamaged set of exactly this identity: it need not be made again."""
    try:
        manifest = ShardSet.open(folder).manifest
    except ArtifactError:
        return None
    return manifest if manifest.identity == as_stored(identity) and manifest.schema == str(schema) else None


def _as_written(schema: str) -> str:
    """Arrow calls a list's part `item` before it is written as Parquet, and `element` once it is read."""
    return re.sub(r"\belement: ", "item: ", schema)


class ShardSet:
    """A checked, read-only view of a shard set."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest

    @classmethod
    def open(cls, folder: str | Path, identity: dict[str, Any] | None = None, verify: bool = True) -> ShardSet:
        """Check the manifest, every shard's hash (`verify`) and the given identity fields.

        Raises ArtifactError naming the shard or the identity field that is wrong.
        """
        folder = Path(folder)
        content = read_json(folder / MANIFEST)
        try:
            version = content["schema_version"]
            shards = tuple(Shard.from_json(entry) for entry in content["shards"])
            if not isinstance(content["schema"], str):
                raise TypeError("its schema is not a text")
            manifest = Manifest(dict(content["identity"]), shards, content["schema"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{folder / MANIFEST}: not a shard-set manifest ({error})") from None
        if not shards:
            raise ArtifactError(f"{folder / MANIFEST}: names no shards")
        if version != SCHEMA_VERSION:
            raise ArtifactError(f"{folder / MANIFEST}: schema version {version}, this reader knows {SCHEMA_VERSION}")
        for key, expected in as_stored(identity or {}).items():
            found = manifest.identity.get(key)
            if found != expected:
                raise ArtifactError(f"{folder}: made with {key} = {found!r}, but {expected!r} is asked for")
        for shard in shards:
            path = folder / shard.name
            if not path.is_file():
                raise ArtifactError(f"{path}: shard named by the manifest is missing")
            if verify and sha256_file(path) != shard.sha256:
                raise ArtifactError(f"{path}: content does not match the manifest's SHA-256")
        return cls(folder, manifest)

    @property
    def rows(self) -> int:
        return self.manifest.rows

    @property
    def identity(self) -> dict[str, Any]:
        return self.manifest.identity

    @property
    def columns(self) -> list[str]:
        """Names of the columns, as the first shard has them."""
        path = self.folder / self.manifest.shards[0].name
        try:
            return pq.read_schema(path).names
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ArtifactError(f"{path}: not readable as Parquet ({error})") from None

    def from_shard(self, first: int) -> ShardSet:
        """The same set without the shards before number `first`."""
        return ShardSet(self.folder, replace(self.manifest, shards=self.manifest.shards[first:]))

    def one_shard(self, number: int) -> ShardSet:
        """The same set with one shard alone."""
        return ShardSet(self.folder, replace(self.manifest, shards=self.manifest.shards[number : number + 1]))

    def open_shard(self, shard: Shard) -> pq.ParquetFile:
        """A shard's file. Raises ArtifactError when its rows or columns are not those of the manifest."""
        path = self.folder / shard.name
        try:
            file = pq.ParquetFile(path)
            rows, schema = file.metadata.num_rows, str(file.schema_arrow)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ArtifactError(f"{path}: not readable as Parquet ({error})") from None
        if rows != shard.rows:
            raise ArtifactError(f"{path}: {rows} rows, the manifest says {shard.rows}")
        if _as_written(schema) != _as_written(self.manifest.schema):
            raise ArtifactError(f"{path}: its columns are not those of the manifest")
        return file

    def shards(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """One table a shard, in order."""
        for shard in self.manifest.shards:
            file = self.open_shard(shard)
            try:
                table = file.read(columns)
                table.validate(full=True)
            except (OSError, ValueError, pa.ArrowException) as error:
                raise ArtifactError(f"{self.folder / shard.name}: not readable as Parquet ({error})") from None
            missing = set(columns or ()) - set(table.column_names)
            if missing:
                raise ArtifactError(f"{self.folder / shard.name}: has no column {sorted(missing)[0]!r}")
            yield table

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """All rows in memory."""
        return pa.concat_tables(self.shards(columns))
