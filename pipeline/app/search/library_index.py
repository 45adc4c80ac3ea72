"""The index over one space of a library. It follows the library's changes, whichever process made them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.app.search.library import Library
from pipeline.app.search.library_milvus import MilvusLibraryIndex
from pipeline.artifacts import ArtifactError, StorageError, read_json, write_atomically, write_json
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import IndexParams
from pipeline.retrieval.index import INDEX, Index
from pipeline.retrieval.kinds import gpu_copy, new_index

INDEXES, SLOTS = "index", "slots.parquet"
DEAD_SHARE = 0.3
"""An index is built anew when more of its rows are images that were removed."""
TRAINED_GROWTH = 4
"""And one whose kind is trained, when it holds so many times as many rows as when it was trained."""
KEPT_GROWTH = 1.01
"""It is written to the disk when it holds so many times as many rows as there. The rest is appended when it opens."""


def open_library_index(
    library: Library, space: str, params: IndexParams, threads: int = 1
) -> LibraryIndex | MilvusLibraryIndex:
    """The index over one space of a library, of the kind that `params` names. See `LibraryIndex` for the arguments."""
    if params.kind == "milvus":
        return MilvusLibraryIndex(library, space, params)
    return LibraryIndex(library, space, params, threads)


class LibraryIndex(Index):
    """An index in memory. Rows are only appended; those of removed images are passed over.

    `flat` is filled from the library's vectors. The other kinds are kept in the library's folder, in `index/<space>`.

    Args:
        library: What is searched.
        space: One of its spaces.
        params: The kind of index.
        threads: CPU threads of a search.
    """

    def __init__(self, library: Library, space: str, params: IndexParams, threads: int = 1):
        self._library, self._space, self._params = library, space, params
        self._folder = library.folder / INDEXES / space
        self._search_lock = threading.RLock()
        faiss.omp_set_num_threads(threads)
        self._masks: dict[str, np.ndarray] = {}
        self._version, self._trained_on, self._kept = -1, 0, 0
        self._slots = np.empty(0, np.int64)
        self._present: np.ndarray | None = None
        self._load()
        self.refresh()

    def __len__(self) -> int:
        return len(self._positions)

    def search(
        self,
        vectors: np.ndarray,
        top_k: int,
        exclude: Sequence[str | None] | None = None,
        fuse: str = "mean",
        among: str | None = None,
    ) -> tuple[list[list[str]], list[list[float]]]:
        """See `Index.search`. `among` is a filter on metadata, see `pipeline.retrieval.filters`."""
        with self._search_lock:
            self.refresh()
            return super().search(vectors, top_k, exclude, fuse, self._mask(among or ""))

    def refresh(self) -> None:
        """Catch up with the library."""
        with self._search_lock:
            version = self._library.version
            if version == self._version:
                return
            if self._library.spaces.get(self._space) != self._model:
                self._start()
            self._append()
            present = np.isin(self._slots, self._library.slots())
            self._positions = {name: place for place, name in enumerate(self.ids) if present[place]}
            self._present = None if present.all() else present
            self._masks.clear()
            self._version = version
            if self._is_worn(present):
                self._start()
                self.refresh()
            elif len(self.ids) > KEPT_GROWTH * self._kept:
                self._save()
            self._on_gpu = gpu_copy(self._index) if self._params.device == "auto" else None

    def _mask(self, where: str) -> np.ndarray | None:
        """The rows that may be returned, bool [rows]; None: all."""
        if not where:
            return self._present
        if where not in self._masks:
            if len(self._masks) >= 64:
                self._masks.clear()
            self._masks[where] = np.isin(self._slots, self._library.slots(where))
        return self._masks[where]

    def _start(self) -> None:
        """An index without rows. One whose kind is trained learns from the library's vectors.

        A library with too few for that is searched exactly until it has grown.
        """
        parts = (
            [vectors for _, _, vectors in self._library.vectors(self._space)] if self._params.kind == "ivfpq" else []
        )
        whole = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
        dim, rows = whole.shape[1] if parts else self._library.dim(self._space), len(self._library)

        def sample(size: int) -> np.ndarray:
            drawn = np.random.default_rng(0).choice(len(whole), min(size, len(whole)), replace=False)
            return whole[np.sort(drawn)]

        kind = self._params.kind
        try:
            index = new_index(self._params, dim, rows, sample)
        except ArtifactError:
            kind = "flat"
            index = new_index(replace(self._params, kind=kind), dim, rows, sample)
        super().__init__(index, [], {"kind": kind})
        self._slots, self._trained_on, self._kept = np.empty(0, np.int64), rows, 0
        self._version, self._present, self._model = -1, None, self._library.spaces.get(self._space)

    def _load(self) -> None:
        """Take the kept index, if it is of this kind and of rows that the library has had."""
        try:
            manifest = read_json(self._folder / MANIFEST)
            trained_on, model = manifest.pop("trained_on"), self._library.spaces.get(self._space)
            if manifest != self._made_from(model):
                raise ArtifactError("of another kind, or of another model's vectors")
            index, rows = faiss.read_index(str(self._folder / INDEX)), pq.read_table(self._folder / SLOTS)
            if index.ntotal != len(rows):
                raise ArtifactError("of other rows")
        except (
            ArtifactError,
            AttributeError,
            OSError,
            RuntimeError,
            LookupError,
            TypeError,
            ValueError,
            pa.ArrowException,
        ):
            self._start()
            return
        super().__init__(index, rows["id"].to_pylist(), {"kind": self._params.kind})
        self._slots, self._trained_on, self._kept = rows["slot"].to_numpy(), trained_on, len(rows)
        self._version, self._present, self._model = -1, None, model

    def _made_from(self, model: dict[str, Any] | None) -> dict[str, Any]:
        return {"params": asdict(self._params), "library": self._library.key, "model": model}

    def _append(self) -> None:
        """Add what the library has got since."""
        for slots, ids, vectors in self._library.vectors(self._space, int(self._slots.max(initial=0))):
            self._index.add(vectors)
            self.ids.extend(ids)
            self._slots = np.concatenate([self._slots, slots])

    def _is_worn(self, present: np.ndarray) -> bool:
        grown = self._params.kind == "ivfpq" and len(self.ids) > TRAINED_GROWTH * self._trained_on
        return bool(len(present)) and (grown or (~present).mean() > DEAD_SHARE)

    def _save(self) -> None:
        """Keep the index where that is quicker than making it again. A library that only reads does without."""
        if self.manifest["kind"] == "flat":
            return
        manifest = self._made_from(self._model) | {"trained_on": self._trained_on}
        try:
            with write_atomically(self._folder) as aside:
                aside.mkdir()
                faiss.write_index(self._index, str(aside / INDEX))
                pq.write_table(pa.table({"slot": self._slots, "id": self.ids}), aside / SLOTS)
                write_json(aside / MANIFEST, manifest)
            self._kept = len(self.ids)
        except StorageError:
            raise
        except (OSError, RuntimeError):
            return
