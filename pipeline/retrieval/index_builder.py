"""From a gallery's shards to an index folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import pyarrow as pa
from tqdm import tqdm

from pipeline.artifacts import ArtifactError, ShardSet, sha256_file, write_atomically, write_json, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import IndexParams
from pipeline.retrieval.gallery_vectors import sample, vectors
from pipeline.retrieval.index import IDS, INDEX, RECALL, Index
from pipeline.retrieval.kinds import new_index
from pipeline.retrieval.recall import recall_against_exact

_IDS_SCHEMA = pa.schema([("id", pa.string())])


def build_faiss_index(
    shard_folder: str | Path, out_folder: str | Path, params: IndexParams, threads: int = 1, seed: int = 0
) -> dict[str, Any]:
    """Build FAISS's index of a shard set of `schemas.embeddings`, shard by shard, and return its manifest.

    Beside the index itself, memory holds one shard, the ids, and for `ivfpq` a training sample of at most
    `params.train_rows` vectors drawn by `seed`. The manifest says what recall the index reaches.

    The same gallery, parameters, seed and number of threads give the same bytes. The links of an HNSW
    graph depend on the order of insertion, so one thread inserts, unless `params.deterministic` is
    false: then `threads` race and two builds differ. Another number of threads may round the centroids
    of `ivfpq` otherwise; `flat` is the same with any.

    Raises ArtifactError naming the row whose vector is missing, not finite, not of unit length or of
    another dimension, or whose id occurs twice; ParameterError for a size that the gallery cannot
    have. `out_folder` appears only when it is complete.
    """
    shard_folder = Path(shard_folder)
    gallery = ShardSet.open(shard_folder)
    if gallery.rows == 0:
        raise ArtifactError(f"{shard_folder}: no vectors to index")
    filled, ids = _filled(gallery, params, threads, seed)
    gallery_hash = sha256_file(shard_folder / MANIFEST)
    manifest: dict[str, Any] = {
        "kind": params.kind,
        "dim": filled.d,
        "rows": len(ids.names),
        "metric": "inner_product",
        "device": params.device,
        "gallery": gallery_hash,
        "gallery_identity": gallery.identity,
    }
    manifest |= measured(Index(filled, list(ids.names), manifest), gallery, params, seed)
    with write_atomically(out_folder) as aside:
        aside.mkdir()
        faiss.write_index(filled, str(aside / INDEX))
        write_table(aside / IDS, ids.table(), {"gallery": gallery_hash}, rows_per_shard=1_000_000)
        manifest["index_sha256"] = sha256_file(aside / INDEX)
        write_json(aside / MANIFEST, manifest)
    return manifest


def _filled(gallery: ShardSet, params: IndexParams, threads: int, seed: int) -> tuple[faiss.Index, IdsOnce]:
    """The index with every row of the gallery in it, and their ids."""
    dim = next(vectors(gallery))[1].shape[1]
    faiss.omp_set_num_threads(1 if params.kind == "hnsw" and params.deterministic else threads)
    try:
        index = new_index(params, dim, gallery.rows, lambda size: sample(gallery, size, seed))
    except ArtifactError as error:
        raise ArtifactError(f"{gallery.folder}: {error}") from None
    ids = IdsOnce(gallery.folder)
    with tqdm(total=gallery.rows, desc=f"{params.kind} index", unit="vector", mininterval=5.0) as progress:
        for names, rows in vectors(gallery):
            ids.add(names)
            index.add(rows)
            progress.update(len(rows))
    faiss.omp_set_num_threads(threads)
    return index, ids


class IdsOnce:
    """Ids in order, each of which occurs once.

    Args:
        source: Where they are from, for messages.
    """

    def __init__(self, source: Path):
        self.names: dict[str, None] = {}  # in order, and quick to search
        self._source = source

    def add(self, names: Iterable[str]) -> None:
        """Take some more. Raises ArtifactError naming one that occurs twice."""
        for name in names:
            if name in self.names:
                raise ArtifactError(f"{self._source}: row {name!r} occurs twice")
            self.names[name] = None

    def table(self) -> pa.Table:
        """A table of the one column `id`."""
        return pa.table({"id": list(self.names)}, schema=_IDS_SCHEMA)


def measured(index: Index, gallery: ShardSet, params: IndexParams, seed: int) -> dict[str, Any]:
    """The manifest's entries about an index's recall; none where it is not asked for."""
    if not params.recall_queries:
        return {}
    recall = recall_against_exact(index, gallery, params.recall_queries, seed)
    return {
        RECALL: recall if recall is None else round(recall, 4),
        "recall_queries": min(params.recall_queries, len(index)),
    }
