"""The index over one space of a library in Milvus. A collection follows the library's changes."""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.app.search.library import Library
from pipeline.config import IndexParams
from pipeline.retrieval.filters import as_milvus, parse_filter
from pipeline.retrieval.milvus import METADATA, MOST, Collection, MilvusIndex

_MARK = 0
"""The slot of a row without an image, whose metadata says what the collection holds. Images' slots begin at 1."""


class MilvusLibraryIndex(MilvusIndex):
    """An index in Milvus. The library stays what counts: a collection that is lost is written again.

    Args:
        library: What is searched.
        space: One of its spaces.
        params: Where Milvus is, and its kind of index.

    Raises:
        ArtifactError: Milvus does not answer.
    """

    def __init__(self, library: Library, space: str, params: IndexParams):
        self._library, self._space = library, space
        self._lock, self._version = threading.RLock(), -1
        self._kind = {"index": params.milvus_index, "m": params.hnsw_m, "ef_construction": params.ef_construction}
        collection = Collection(params, re.sub(r"\W", "_", f"cir_{library.key}_{space}"))
        super().__init__(collection, library.dim(space), [], {"kind": params.kind})
        self.refresh()

    def search(
        self,
        vectors: np.ndarray,
        top_k: int,
        exclude: Sequence[str | None] | None = None,
        fuse: str = "mean",
        among: str | None = None,
    ) -> tuple[list[list[str]], list[list[float]]]:
        """See `Index.search`. `among` is a filter on metadata, see `pipeline.retrieval.filters`."""
        with self._lock:
            self.refresh()
            where = as_milvus(parse_filter(among, self._library.fields), METADATA) if among else None
            return super().search(vectors, top_k, exclude, fuse, where)

    def refresh(self) -> None:
        """Catch up with the library."""
        with self._lock:
            if self._library.version == self._version:
                return
            with _alone(self._library.folder):
                self._version = self._follow()
            slot_of = self._library.slot_of
            self.hold(list(slot_of), np.fromiter(slot_of.values(), np.int64, len(slot_of)))

    def _most(self, among: object) -> int:
        return min(len(self.ids) + 1, MOST)  # the mark can be among the candidates, and is no row of the index

    def _follow(self) -> int:
        """Write to the collection what it lacks, and return the library's version that it has then.

        The mark is written last: what a killed process has written is written again.
        """
        holds = {"model": self._library.spaces.get(self._space), "kind": self._kind}
        mark = self.collection.metadata(_MARK) if self.collection.open() else {}
        seen = mark.pop("version", -1)
        is_new = mark != holds or seen > self._library.version
        if is_new:
            self._dim = self._library.dim(self._space)
            self.collection.create(self._dim)
        version, changed, gone = self._library.changes_since(-1 if is_new else seen)
        for slots, vectors, entries in self._library.rows_of_slots(self._space, changed):
            self.collection.upsert(slots, vectors, (entry.metadata for entry in entries))
        self.collection.delete([] if is_new else gone)
        self.collection.upsert([_MARK], np.zeros((1, self._dim), np.float32), [holds | {"version": version}])
        if is_new:
            self.collection.finish()
        return version


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of a host at a time; a folder can be locked even where it cannot be written to."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
