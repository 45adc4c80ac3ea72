"""FAISS indexes over L2-normalised vectors: inner product is cosine similarity.

An index folder holds `index.faiss`, the gallery's ids in gallery order (`ids/`, a shard set) and a
`manifest.json` that names the gallery the index was built from.

Every search ends in an exact scoring of its candidates (float64 products rounded to float32), so a
score does not depend on the batch it was computed in, and **ties are broken by gallery order**: of
two equal scores the row that comes first in the gallery ranks first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from pipeline.artifacts import ArtifactError, ShardSet, read_json, sha256_file, write_atomically, write_json, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import IndexParams

INDEX, IDS = "index.faiss", "ids"
UNIT_TOLERANCE = 1e-3
"""What rounding a unit vector to float16 may cost its norm, doubled."""

HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 200, 256
IVF_TRAIN_PER_LIST, IVF_PROBED_SHARE, IVF_PROBED_LEAST, REFINE_FACTOR = 64, 0.15, 8, 8
PQ_TRAIN_PER_CENTROID = 39
"""FAISS's own lower limit for a codebook worth having."""

SLACK = 16
"""Candidates asked of FAISS beyond those wanted, before the exact scoring."""
FAISS_TOLERANCE = 1e-5
"""How far FAISS's float32 scores may lie from the exact ones."""

_IDS_SCHEMA = pa.schema([("id", pa.string())])


def build_index(shard_folder: str | Path, out_folder: str | Path, params: IndexParams, threads: int = 1) -> dict[str, Any]:
    """Build the index of a shard set of `schemas.embeddings`, shard by shard, and return its manifest.

    Raises ArtifactError naming the row whose vector is missing, not finite, not of unit length or of
    another dimension, or whose id occurs twice. `out_folder` appears only when it is complete.
    """
    shard_folder = Path(shard_folder)
    gallery = ShardSet.open(shard_folder)
    if gallery.rows == 0:
        raise ArtifactError(f"{shard_folder}: no vectors to index")
    dim = next(_vectors(gallery))[1].shape[1]
    # Inserting into an HNSW graph from several threads makes the graph depend on their race.
    faiss.omp_set_num_threads(1 if params.kind == "hnsw" else threads)
    index = _empty_index(params.kind, dim, gallery)
    ids: list[str] = []
    seen: set[str] = set()
    for names, vectors in _vectors(gallery):
        for name in names:
            if name in seen:
                raise ArtifactError(f"{shard_folder}: row {name!r} occurs twice")
            seen.add(name)
        ids.extend(names)
        index.add(vectors)
    faiss.omp_set_num_threads(threads)

    with write_atomically(out_folder) as aside:
        aside.mkdir()
        faiss.write_index(index, str(aside / INDEX))
        gallery_hash = sha256_file(shard_folder / MANIFEST)
        write_table(aside / IDS, pa.table({"id": ids}, schema=_IDS_SCHEMA), {"gallery": gallery_hash}, rows_per_shard=1_000_000)
        manifest = {
            "kind": params.kind, "dim": dim, "rows": len(ids), "metric": "inner_product", "gallery": gallery_hash,
            "gallery_identity": gallery.identity, "index_sha256": sha256_file(aside / INDEX),
        }
        write_json(aside / MANIFEST, manifest)
    return manifest


def _vectors(gallery: ShardSet) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and float32 unit vectors [rows, d] of one shard after the other, checked."""
    dim = None
    for table in gallery.shards(["id", "vector"]):
        ids, column = table["id"].to_pylist(), table["vector"].combine_chunks()
        if not ids:
            continue
        if not pa.types.is_fixed_size_list(column.type):
            raise ArtifactError(f"{gallery.folder}: vectors are {column.type}, not fixed_size_list")
        dim = dim or column.type.list_size
        if column.type.list_size != dim:
            raise ArtifactError(f"{gallery.folder}: row {ids[0]!r} has {column.type.list_size} dimensions, the rows before it {dim}")
        if column.null_count:
            raise ArtifactError(f"{gallery.folder}: row {ids[column.is_null().to_pylist().index(True)]!r} has no vector")
        vectors = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)
        norms = np.linalg.norm(vectors, axis=1)
        for wrong, reason in ((~np.isfinite(vectors).all(axis=1), "is not finite"), (np.abs(norms - 1) > UNIT_TOLERANCE, "is not of unit length")):
            if wrong.any():
                raise ArtifactError(f"{gallery.folder}: the vector of row {ids[int(wrong.argmax())]!r} {reason}")
        yield ids, np.ascontiguousarray(vectors / norms[:, None])


def _empty_index(kind: str, dim: int, gallery: ShardSet) -> faiss.Index:
    """An index without rows, trained where its kind needs it."""
    if kind == "flat":
        return faiss.IndexFlatIP(dim)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = HNSW_BUILD, HNSW_SEARCH
        return index
    rows = gallery.rows
    least = PQ_TRAIN_PER_CENTROID * 2**4
    if rows < least:
        raise ArtifactError(f"{gallery.folder}: an ivfpq index needs at least {least} vectors, not {rows}; use flat")
    lists = max(1, min(int(4 * rows**0.5), rows // IVF_TRAIN_PER_LIST))
    parts = max(parts for parts in range(1, max(1, dim // 4) + 1) if dim % parts == 0)
    bits = 8 if rows >= PQ_TRAIN_PER_CENTROID * 2**8 else 4
    index = faiss.index_factory(dim, f"IVF{lists},PQ{parts}x{bits},RFlat", faiss.METRIC_INNER_PRODUCT)
    index.k_factor = REFINE_FACTOR
    faiss.extract_index_ivf(index).nprobe = min(lists, max(IVF_PROBED_LEAST, round(lists * IVF_PROBED_SHARE)))
    index.train(_training_sample(gallery, max(lists * IVF_TRAIN_PER_LIST, 65_536)))
    return index


def _training_sample(gallery: ShardSet, size: int) -> np.ndarray:
    """At most `size` vectors, evenly spaced over the gallery."""
    wanted = np.unique(np.linspace(0, gallery.rows - 1, min(size, gallery.rows)).astype(np.int64))
    parts, start = [], 0
    for _, vectors in _vectors(gallery):
        inside = wanted[(wanted >= start) & (wanted < start + len(vectors))]
        parts.append(vectors[inside - start])
        start += len(vectors)
    return np.concatenate(parts)


class Index:
    """A gallery that can be searched. Open one with `Index.open`."""

    def __init__(self, index: faiss.Index, ids: list[str], manifest: dict[str, Any]):
        self.ids, self.manifest = ids, manifest
        self._index = index
        self._positions = {name: position for position, name in enumerate(ids)}

    @classmethod
    def open(cls, folder: str | Path, gallery: str | Path | None = None, threads: int = 1) -> Index:
        """Check the index (against the shard set `gallery` where given) and load it.

        Raises ArtifactError naming what is missing, damaged or made from something else.
        """
        folder = Path(folder)
        manifest = read_json(folder / MANIFEST)
        path = folder / INDEX
        if not path.is_file() or sha256_file(path) != manifest.get("index_sha256"):
            raise ArtifactError(f"{path}: missing, or not the file that the manifest describes")
        if gallery is not None and sha256_file(Path(gallery) / MANIFEST) != manifest["gallery"]:
            raise ArtifactError(f"{folder}: not built from the present {gallery}")
        ids = ShardSet.open(folder / IDS, identity={"gallery": manifest["gallery"]}).table()["id"].to_pylist()
        index = faiss.read_index(str(path))
        if not len(ids) == index.ntotal == manifest["rows"]:
            raise ArtifactError(f"{folder}: {len(ids)} ids for {index.ntotal} vectors, the manifest says {manifest['rows']}")
        faiss.omp_set_num_threads(threads)
        return cls(index, ids, manifest)

    @property
    def dim(self) -> int:
        return self._index.d

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, name: str) -> bool:
        return name in self._positions

    def search(
        self, vectors: np.ndarray, top_k: int, exclude: Sequence[str | None] | None = None, fuse: str = "mean",
    ) -> tuple[list[list[str]], list[list[float]]]:
        """The `top_k` best gallery ids and their scores for every query, best first.

        `vectors` is [Q, d], or [Q, H, d] for H hypotheses a query, whose scores `fuse` makes one
        (mean | max). `exclude` names one gallery id a query that must not be returned (the reference);
        an id outside the gallery removes nothing. Lists are shorter only where the gallery is.
        """
        queries = self._as_hypotheses(vectors, fuse)  # [Q, H, d]
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; at least 1 is needed")
        if exclude is not None and len(exclude) != len(queries):
            raise ValueError(f"{len(exclude)} exclusions for {len(queries)} queries")
        excluded = np.array([self._positions.get(name, -1) if name is not None else -1 for name in exclude or [None] * len(queries)])
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
        pending, asked = np.arange(len(queries)), top_k + 1 + SLACK
        while len(pending):
            asked = min(asked, len(self))
            rough, candidates = self._index.search(queries[pending].reshape(-1, self.dim), asked)
            shape = (len(pending), queries.shape[1], asked)
            rough, candidates = rough.reshape(shape), candidates.reshape(shape)
            unsettled = []
            for row, query in enumerate(pending):
                positions = np.unique(candidates[row])
                positions = positions[(positions >= 0) & (positions != excluded[query])]
                positions, scores = self._rank(queries[query], positions)
                found[query] = positions[:top_k], scores[:top_k]
                if not self._settled(scores, top_k, rough[row], asked):
                    unsettled.append(query)
            pending, asked = np.array(unsettled, dtype=np.int64), asked * 4
        return [[self.ids[p] for p in positions] for positions, _ in found], [scores.tolist() for _, scores in found]

    def scores_for(self, query_vector: np.ndarray, ids: Sequence[str], fuse: str = "mean") -> np.ndarray:
        """Exact scores [len(ids)] of the named gallery rows for one query, [d] or [H, d]."""
        query = self._as_hypotheses(np.asarray(query_vector)[None], fuse)[0]
        return self._exact_scores(query, self._positions_of(ids))

    def rank(self, query_vector: np.ndarray, ids: Sequence[str], fuse: str = "mean") -> tuple[list[str], list[float]]:
        """The named gallery rows ordered for one query, best first, with their scores."""
        query = self._as_hypotheses(np.asarray(query_vector)[None], fuse)[0]
        positions, scores = self._rank(query, self._positions_of(ids))
        return [self.ids[p] for p in positions], scores.tolist()

    def _settled(self, scores: np.ndarray, top_k: int, rough: np.ndarray, asked: int) -> bool:
        """Whether no row beyond FAISS's candidates can belong to the top k (an approximate index promises nothing)."""
        if self.manifest["kind"] != "flat" or asked == len(self):
            return True
        return len(scores) >= top_k and scores[top_k - 1] > rough[:, -1].max() + FAISS_TOLERANCE

    def _as_hypotheses(self, vectors: np.ndarray, fuse: str) -> np.ndarray:
        """Checked float32 queries [Q, H, d]; the mean of scores is the score of the mean, so H = 1 for it."""
        if fuse not in ("mean", "max"):
            raise ValueError(f"fuse: {fuse!r} is neither mean nor max")
        queries = np.asarray(vectors, dtype=np.float32)
        if queries.ndim == 2:
            queries = queries[:, None]
        if queries.ndim != 3 or queries.shape[2] != self.dim or queries.shape[1] == 0:
            raise ValueError(f"query vectors of shape {np.shape(vectors)} for an index of {self.dim} dimensions")
        if not np.isfinite(queries).all():
            raise ValueError(f"query {int((~np.isfinite(queries)).any(axis=(1, 2)).argmax())} is not finite")
        return np.ascontiguousarray(queries.mean(axis=1, keepdims=True) if fuse == "mean" else queries)

    def _positions_of(self, ids: Sequence[str]) -> np.ndarray:
        unknown = [name for name in ids if name not in self._positions]
        if unknown:
            raise ValueError(f"{len(unknown)} ids are not in the gallery, the first is {unknown[0]!r}")
        return np.array([self._positions[name] for name in ids], dtype=np.int64)

    def _exact_scores(self, query: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Scores [n] of gallery rows for one query [H, d]: the best hypothesis, in float64, rounded to float32."""
        if len(positions) == 0:
            return np.empty(0, np.float32)
        rows = self._index.reconstruct_batch(positions).astype(np.float64)  # [n, d]
        return np.einsum("nd,hd->hn", rows, query.astype(np.float64)).max(axis=0).astype(np.float32)

    def _rank(self, query: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = self._exact_scores(query, positions)
        order = np.lexsort((positions, -scores))
        return positions[order], scores[order]
