"""The indexes that are compared, each behind `build`, `limit` and `search`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from tqdm import tqdm

from bench.profiles import profile
from bench.vectors import CHUNK, Data
from pipeline.config import IndexParams
from pipeline.retrieval import Index
from pipeline.retrieval.kinds import inverted_lists, limit_search, new_index

M, EF_CONSTRUCTION = 16, 100
EF = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
REFINE = (2, 4, 8, 16, 32)
INDEX = profile("offline").index


class Engine(ABC):
    """One index. `sweeps` lists what it can be tuned by: fixed settings, the name of a rising one, and its values."""

    sweeps: list[tuple[dict[str, int], str, tuple[int, ...]]]
    settings: dict[str, Any]

    def __init__(self, data: Data, folder: Path, threads: int):
        self.data, self.folder, self.threads = data, folder, threads

    def build(self) -> dict[str, float]:
        """Fill the index from the vectors' file; seconds of each part, reading included."""
        started = time.perf_counter()
        self.train()
        trained = time.perf_counter()
        with tqdm(total=self.data.rows, desc=type(self).__name__, unit="vector", mininterval=5.0) as progress:
            for start, vectors in zip(range(0, self.data.rows, CHUNK), self.data.read(self.folder), strict=True):
                self.add(start, vectors)
                progress.update(len(vectors))
        added = time.perf_counter()
        return {
            "train_s": round(trained - started, 2),
            "add_s": round(added - trained, 2),
            "build_s": round(added - started, 2),
        }

    @abstractmethod
    def train(self) -> None: ...

    @abstractmethod
    def add(self, start: int, vectors: np.ndarray) -> None: ...

    @abstractmethod
    def limit(self, **setting: int) -> None:
        """How far the next searches look."""

    @abstractmethod
    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Positions [Q, k]."""

    def ranked(self, queries: np.ndarray, k: int) -> np.ndarray | None:
        """The same as the rest of the project asks for it, through `Index.search`; None for the peer."""
        return None


class Faiss(Engine):
    """The project's own index of one kind, made as `build_index` makes it."""

    params: IndexParams

    def train(self) -> None:
        faiss.omp_set_num_threads(self.threads)
        self.index = new_index(self.params, self.data.dim, self.data.rows, self._sample)

    def _sample(self, size: int) -> np.ndarray:
        """Every so manieth vector: the file is in random order already."""
        step = max(1, -(-self.data.rows // size))
        starts = range(0, self.data.rows, CHUNK)
        return np.concatenate(
            [part[(-start) % step :: step] for start, part in zip(starts, self.data.read(self.folder), strict=True)]
        )

    def add(self, start: int, vectors: np.ndarray) -> None:
        self.index.add(vectors)

    def limit(self, **setting: int) -> None:
        limit_search(self.index, **setting)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        return self.index.search(queries, k)[1]

    def ranked(self, queries: np.ndarray, k: int) -> np.ndarray:
        found, _ = self._as_index.search(queries, k)
        return np.array([[int(name) for name in names] + [-1] * (k - len(names)) for names in found])

    @cached_property
    def _as_index(self) -> Index:
        return Index(self.index, [str(position) for position in range(self.data.rows)], {"kind": self.params.kind})


class Flat(Faiss):
    params = replace(INDEX, kind="flat")
    settings = {"storage": "float32"}
    sweeps = []


class Hnsw(Faiss):
    params = replace(
        INDEX, kind="hnsw", storage="float16", hnsw_m=M, ef_construction=EF_CONSTRUCTION, deterministic=False
    )
    settings = {"storage": "float16", "hnsw_m": M, "ef_construction": EF_CONSTRUCTION}
    sweeps = [({}, "ef_search", EF)]


class IvfPq(Faiss):
    params = replace(INDEX, kind="ivfpq", storage="float16")
    sweeps = [({"refine_factor": factor}, "nprobe", PROBES) for factor in REFINE]

    @property
    def settings(self) -> dict[str, Any]:
        ivf = inverted_lists(self.index)
        return {"storage": "float16", "nlist": ivf.nlist, "pq_bits": ivf.pq.nbits, "pq_parts": ivf.pq.M}


class Usearch(Engine):
    """The peer: an HNSW graph with the same number of links, breadth of construction and storage."""

    settings = {"storage": "float16", "connectivity": M, "expansion_add": EF_CONSTRUCTION}
    sweeps = [({}, "expansion_search", EF)]

    def train(self) -> None:
        from usearch.index import Index as UsearchIndex

        self.index = UsearchIndex(
            ndim=self.data.dim,
            metric="ip",
            dtype="f16",
            connectivity=M,
            expansion_add=EF_CONSTRUCTION,
            enable_key_lookups=False,
        )

    def add(self, start: int, vectors: np.ndarray) -> None:
        self.index.add(np.arange(start, start + len(vectors)), vectors, threads=self.threads)

    def limit(self, **setting: int) -> None:
        self.index.expansion_search = setting["expansion_search"]

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        keys = self.index.search(queries, k, threads=min(self.threads, len(queries))).keys
        return np.asarray(keys).reshape(len(queries), k).astype(np.int64)


ENGINES: dict[str, type[Engine]] = {"flat": Flat, "hnsw": Hnsw, "ivfpq": IvfPq, "usearch": Usearch}
