"""FAISS indexes over L2-normalised vectors: inner product is cosine similarity.

An index folder holds `index.faiss`, the gallery's ids in gallery order (`ids/`, a shard set) and a
`manifest.json` that names the gallery the index was built from.

Every search ends in an exact scoring of its candidates (float64 products rounded to float32), so a
score does not depend on the batch it was computed in, and **ties are broken by gallery order**: of
two equal scores the row that comes first in the gallery ranks first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from pipeline.artifacts import ArtifactError, ShardSet, read_json, sha256_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.retrieval.kinds import GPU_MOST, gpu_copy, search_among

INDEX, IDS = "index.faiss", "ids"
RECALL = "recall@10"
"""The manifest's entry for recall against exact search, in [0, 1]; absent where it was not measured."""

SLACK = 16
"""Candidates asked of FAISS beyond those wanted, before the exact scoring."""
FAISS_TOLERANCE = 1e-5
"""How far FAISS's float32 scores may lie from the exact ones."""


class Index:
    """A gallery that can be searched. Open one with `Index.open`.

    Where the manifest's `device` is `auto` and FAISS has a GPU for this kind, candidates come from there;
    their exact scores never do.
    """

    def __init__(self, index: faiss.Index, ids: list[str], manifest: dict[str, Any]):
        self.ids, self.manifest = ids, manifest
        self._index = index
        self._on_gpu = gpu_copy(index) if manifest.get("device") == "auto" else None
        self._positions = {name: position for position, name in enumerate(ids)}

    @classmethod
    def open(cls, folder: str | Path, gallery: str | Path | None = None, threads: int = 1) -> Index:
        """Check the index (against the shard set `gallery` where given) and load it.

        Raises ArtifactError naming what is missing, damaged or made from something else.
        """
        folder = Path(folder)
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict) or not {"gallery", "index_sha256", "kind", "rows"} <= manifest.keys():
            raise ArtifactError(f"{folder / MANIFEST}: not an index's manifest")
        path = folder / INDEX
        if not path.is_file() or sha256_file(path) != manifest["index_sha256"]:
            raise ArtifactError(f"{path}: missing, or not the file that the manifest describes")
        if gallery is not None and sha256_file(Path(gallery) / MANIFEST) != manifest["gallery"]:
            raise ArtifactError(f"{folder}: not built from the present {gallery}")
        ids = ShardSet.open(folder / IDS, identity={"gallery": manifest["gallery"]}).table()["id"].to_pylist()
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArtifactError(f"{path}: not an index of FAISS ({str(error).rpartition(': ')[2]})") from None
        if not len(ids) == index.ntotal == manifest["rows"]:
            raise ArtifactError(
                f"{folder}: {len(ids)} ids for {index.ntotal} vectors, the manifest says {manifest['rows']}"
            )
        faiss.omp_set_num_threads(threads)
        return cls(index, ids, manifest)

    @property
    def dim(self) -> int:
        return self._index.d

    @property
    def keeps_vectors(self) -> bool:
        """Whether `vectors` gives what was indexed, at most rounded to float16; other kinds keep codes of vectors."""
        return self.manifest["kind"] in ("flat", "hnsw", "milvus")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, name: str) -> bool:
        return name in self._positions

    def search(
        self,
        vectors: np.ndarray,
        top_k: int,
        exclude: Sequence[str | None] | None = None,
        fuse: str = "mean",
        among: Any = None,
    ) -> tuple[list[list[str]], list[list[float]]]:
        """The `top_k` best gallery ids and their scores for every query, best first.

        `vectors` is [Q, d], or [Q, H, d] for H hypotheses a query, whose scores `fuse` makes one
        (mean | max). `exclude` names one gallery id a query that must not be returned (the reference);
        an id outside the gallery removes nothing. `among` are the rows that may be returned (bool
        [rows]); None: all. Lists are shorter only where the gallery, or what may be returned, is.
        """
        queries = self._as_hypotheses(vectors, fuse)  # [Q, H, d]
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; at least 1 is needed")
        if exclude is not None and len(exclude) != len(queries):
            raise ValueError(f"{len(exclude)} exclusions for {len(queries)} queries")
        excluded = np.array(
            [self._positions.get(name, -1) if name is not None else -1 for name in exclude or [None] * len(queries)]
        )
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
        most = self._most(among)
        pending, asked = np.arange(len(queries) if most else 0), top_k + 1 + SLACK
        while len(pending):
            asked = min(asked, most)
            rough, candidates = self._candidates(queries[pending].reshape(-1, self.dim), asked, among)
            shape = (len(pending), queries.shape[1], -1)
            rough, candidates = rough.reshape(shape), candidates.reshape(shape)
            unsettled = []
            for row, query in enumerate(pending):
                positions = np.unique(candidates[row])
                positions = positions[(positions >= 0) & (positions != excluded[query])]
                positions, scores = self._rank(queries[query], positions)
                found[query] = positions[:top_k], scores[:top_k]
                if candidates.shape[-1] < most and not self._settled(scores, top_k, rough[row]):
                    unsettled.append(query)
            pending, asked = np.array(unsettled, dtype=np.int64), asked * 4
        return [[self.ids[p] for p in positions] for positions, _ in found], [scores.tolist() for _, scores in found]

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        """Gallery rows [len(ids)] of the named ids."""
        unknown = [name for name in ids if name not in self._positions]
        if unknown:
            raise ValueError(f"{len(unknown)} ids are not in the gallery, the first is {unknown[0]!r}")
        return np.array([self._positions[name] for name in ids], dtype=np.int64)

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """The named gallery rows as float32 [len(ids), d]."""
        return self._stored(self.positions(ids))

    def scores_for(self, query_vector: np.ndarray, ids: Sequence[str], fuse: str = "mean") -> np.ndarray:
        """Exact scores [len(ids)] of the named gallery rows for one query, [d] or [H, d]."""
        query = self._as_hypotheses(np.asarray(query_vector)[None], fuse)[0]
        return self._exact_scores(query, self.positions(ids))

    def rank(self, query_vector: np.ndarray, ids: Sequence[str], fuse: str = "mean") -> tuple[list[str], list[float]]:
        """The named gallery rows ordered for one query, best first, with their scores."""
        query = self._as_hypotheses(np.asarray(query_vector)[None], fuse)[0]
        positions, scores = self._rank(query, self.positions(ids))
        return [self.ids[p] for p in positions], scores.tolist()

    def _most(self, among: Any) -> int:
        """How many rows a search can return."""
        return len(self.ids) if among is None else int(among.sum())

    def _candidates(self, queries: np.ndarray, asked: int, among: Any) -> tuple[np.ndarray, np.ndarray]:
        """FAISS's scores and positions [Q, n] of at least `asked` candidates (-1: none), n >= asked."""
        if among is not None:
            return search_among(self._index, queries, asked, among)
        if self._on_gpu is None or asked > GPU_MOST:
            return self._index.search(queries, asked)
        # There a quantised index goes without its refinement: the exact scoring of more candidates is that.
        asked = int(asked * getattr(self._index, "k_factor", 1))
        return self._on_gpu.search(queries, min(GPU_MOST, len(self.ids), asked))

    def _settled(self, scores: np.ndarray, top_k: int, rough: np.ndarray) -> bool:
        """Whether no row beyond FAISS's candidates can belong to the top k (an approximate index promises nothing)."""
        if self.manifest["kind"] != "flat":
            return True
        return len(scores) >= top_k and scores[top_k - 1] > rough[:, -1].max() + FAISS_TOLERANCE

    def _stored(self, positions: np.ndarray) -> np.ndarray:
        """The vectors [n, d] of gallery rows."""
        return self._index.reconstruct_batch(positions)

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

    def _exact_scores(self, query: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Scores [n] of gallery rows for one query [H, d]: the best hypothesis, in float64, rounded to float32."""
        if len(positions) == 0:
            return np.empty(0, np.float32)
        rows = self._stored(positions).astype(np.float64)  # [n, d]
        return np.einsum("nd,hd->hn", rows, query.astype(np.float64)).max(axis=0).astype(np.float32)

    def _rank(self, query: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = self._exact_scores(query, positions)
        order = np.lexsort((positions, -scores))
        return positions[order], scores[order]
