"""Galleries in Milvus: in a file, by Milvus Lite, or on a server. The code is the same for both.

A collection holds a slot (its primary key), a vector and the metadata of every image. Milvus gives candidates, and
their scores are computed here, exactly and in the same way as for FAISS (`pipeline.retrieval.index`).
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import ArtifactError
from pipeline.config import IndexParams
from pipeline.retrieval.index import Index

TOKEN = "MILVUS_TOKEN"
"""The environment variable with `user:password` or the API key of a server."""
MOST = 16_384
"""Milvus returns at most so many candidates."""
METADATA = "metadata"
_SLOT, _VECTOR = "slot", "vector"
_ROWS_AT_ONCE = 1_000
_BYTES_AT_ONCE = 2**25
"""Of the vectors in one answer; a server refuses large ones."""


@functools.cache
def connect(uri: str) -> Any:
    """A client of a server, or of a file by Milvus Lite, of which a process may have one.

    Args:
        uri: `http://...`, or the path of a file.

    Raises:
        ArtifactError: pymilvus is not installed, or nothing answers at the address.
    """
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise ArtifactError(
            "index.kind: milvus needs pymilvus; `pip install 'composed-image-retrieval[milvus]'`"
        ) from None
    for name in (
        "pymilvus",
        "milvus_lite",
        "grpc._server",
    ):  # what they log, tracebacks among it, is in the errors that they raise
        logging.getLogger(name).setLevel(logging.CRITICAL)
    is_path = "://" not in uri
    if is_path:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
    try:
        return MilvusClient(uri, token=os.environ.get(TOKEN, ""), timeout=10)
    except Exception as error:  # pymilvus raises several kinds, and its own base class for some of them
        hint = "; another process may have it open: Milvus Lite serves one at a time" if is_path else ""
        raise ArtifactError(f"index.uri: {uri}: {_said(error)}{hint}") from None


def _said(error: Exception) -> str:
    return str(getattr(error, "message", "") or error).splitlines()[0]


class Collection:
    """Vectors with metadata under integer keys, in one collection of Milvus.

    Args:
        params: Where, and which kind of index.
        name: The collection's; letters, digits and `_`.
    """

    def __init__(self, params: IndexParams, name: str):
        self.name, self._params, self._client = name, params, connect(params.uri)

    def open(self) -> bool:
        """Whether the database has it; then it is in memory, where searches find it."""
        is_there = self._asked("has_collection", self.name)
        if is_there:
            self._asked("load_collection", self.name)
        return is_there

    def create(self, dim: int) -> None:
        """Make it, without rows; one that is there goes."""
        from pymilvus import DataType, MilvusClient

        self._asked("drop_collection", self.name)
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_SLOT, DataType.INT64, is_primary=True)
        schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field(METADATA, DataType.JSON)
        sizes = {"M": self._params.hnsw_m, "efConstruction": self._params.ef_construction}
        kind = self._params.milvus_index
        index = MilvusClient.prepare_index_params()
        index.add_index(_VECTOR, index_type=kind, metric_type="IP", params=sizes if kind == "HNSW" else {})
        self._asked("create_collection", self.name, schema=schema, index_params=index, consistency_level="Strong")

    def upsert(self, slots: Sequence[int], vectors: np.ndarray, metadata: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, or replace those of the same slots."""
        rows = [
            {_SLOT: int(slot), _VECTOR: vector, METADATA: dict(known)}
            for slot, vector, known in zip(slots, vectors, metadata, strict=True)
        ]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            self._asked("upsert", self.name, rows[start : start + _ROWS_AT_ONCE])

    def delete(self, slots: Sequence[int]) -> None:
        """Remove rows; a slot that has none is ignored."""
        for start in range(0, len(slots), _ROWS_AT_ONCE):
            self._asked("delete", self.name, ids=[int(slot) for slot in slots[start : start + _ROWS_AT_ONCE]])

    def finish(self) -> None:
        """Have all that was written indexed. A server takes this only now and then."""
        self._asked("flush", self.name)
        self._asked("load_collection", self.name)

    def __len__(self) -> int:
        found = self._asked("query", self.name, filter=f"{_SLOT} >= 0", output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def search(self, queries: np.ndarray, count: int, where: str = "") -> Iterator[list[tuple[int, float, np.ndarray]]]:
        """For every query [Q, d] the slots, scores and vectors of at most `count` candidates, best first."""
        width = {"params": {"ef": max(self._params.ef_search, count)}} if self._params.milvus_index == "HNSW" else {}
        at_once = max(1, _BYTES_AT_ONCE // (4 * count * queries.shape[1]))
        for start in range(0, len(queries), at_once):
            found = self._asked(
                "search",
                self.name,
                data=list(queries[start : start + at_once]),
                limit=min(count, MOST),
                filter=where,
                output_fields=[_VECTOR],
                search_params=width,
            )
            for hits in found:
                yield [(hit[_SLOT], hit["distance"], np.asarray(hit["entity"][_VECTOR], np.float32)) for hit in hits]

    def metadata(self, slot: int) -> dict[str, Any]:
        """The metadata of one row; empty where there is no row."""
        found = self._asked("get", self.name, ids=[slot], output_fields=[METADATA])
        return found[0][METADATA] if found else {}

    def vectors(self, slots: Sequence[int]) -> dict[int, np.ndarray]:
        """Slot -> vector, of the slots that have a row."""
        found: dict[int, np.ndarray] = {}
        for start in range(0, len(slots), _ROWS_AT_ONCE):
            some = [int(slot) for slot in slots[start : start + _ROWS_AT_ONCE]]
            for row in self._asked("get", self.name, ids=some, output_fields=[_SLOT, _VECTOR]):
                found[row[_SLOT]] = np.asarray(row[_VECTOR], dtype=np.float32)
        return found

    def _asked(self, method: str, *arguments: Any, **named: Any) -> Any:
        try:
            return getattr(self._client, method)(*arguments, **named)
        except Exception as error:
            raise ArtifactError(f"{self._params.uri}: {self.name}: {method}: {_said(error)}") from None


class MilvusIndex(Index):
    """A gallery whose vectors are in Milvus.

    Args:
        collection: Holds the vectors.
        dim: d, their width.
        ids: The gallery's ids, in gallery order.
        manifest: As for `Index`.
        slots: The ids' slots [N], ascending; None: their positions.
    """

    def __init__(
        self,
        collection: Collection,
        dim: int,
        ids: list[str],
        manifest: dict[str, Any],
        slots: np.ndarray | None = None,
    ):
        self.collection, self.manifest = collection, manifest
        self._dim = dim
        self.hold(ids, np.arange(len(ids)) if slots is None else slots)

    def hold(self, ids: list[str], slots: np.ndarray) -> None:
        """Take other ids and slots, after the collection has changed."""
        self.ids, self._slots, self._fetched = ids, slots, threading.local()
        self._positions = {name: position for position, name in enumerate(ids)}

    @property
    def dim(self) -> int:
        return self._dim

    def _most(self, among: Any) -> int:
        return min(len(self.ids), MOST)

    def _candidates(self, queries: np.ndarray, asked: int, among: Any) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full((len(queries), asked), -np.inf, np.float32)
        positions = np.full((len(queries), asked), -1)
        self._fetched.vectors = {}
        for row, hits in enumerate(self.collection.search(queries, asked, among or "")):
            places = self._places([slot for slot, _, _ in hits])
            for column, (place, (_, score, vector)) in enumerate(zip(places, hits, strict=True)):
                scores[row, column], positions[row, column] = score, place
                self._fetched.vectors[place] = vector
        return scores, positions

    def _places(self, slots: Sequence[int]) -> np.ndarray:
        """Positions of slots; -1 for one that the gallery does not hold (any more)."""
        if not len(self._slots):
            return np.full(len(slots), -1)
        wanted = np.asarray(slots, dtype=np.int64)
        places = np.minimum(np.searchsorted(self._slots, wanted), len(self._slots) - 1)
        return np.where(self._slots[places] == wanted, places, -1)

    def _stored(self, positions: np.ndarray) -> np.ndarray:
        known = getattr(self._fetched, "vectors", {})
        missing = [int(place) for place in positions if int(place) not in known]
        found = self.collection.vectors(self._slots[missing].tolist()) if missing else {}
        try:
            rows = [known[place] if place in known else found[int(self._slots[place])] for place in positions.tolist()]
        except KeyError:
            raise ArtifactError(f"{self.collection.name}: a vector of the gallery is gone from Milvus") from None
        return np.stack(rows) if rows else np.empty((0, self._dim), np.float32)
