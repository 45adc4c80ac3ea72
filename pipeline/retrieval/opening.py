"""Index folders on disk: FAISS's, and those whose vectors are in Milvus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.artifacts import (
    ArtifactError,
    ShardSet,
    read_json,
    sha256_file,
    write_atomically,
    write_json,
    write_table,
)
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import IndexParams
from pipeline.retrieval.gallery_vectors import vectors
from pipeline.retrieval.index import IDS, Index
from pipeline.retrieval.index_builder import IdsOnce, build_faiss_index, measured
from pipeline.retrieval.milvus import Collection, MilvusIndex


def build_index(
    shard_folder: str | Path, out_folder: str | Path, params: IndexParams, threads: int = 1, seed: int = 0
) -> dict[str, Any]:
    """Build the index of a gallery, of the kind that `params` names.

    Args:
        shard_folder: The gallery's vectors, a shard set of `schemas.embeddings`.
        out_folder: Where the index goes. With `kind: milvus` it holds the ids and says where the vectors are.
        params: The kind and its sizes.
        threads: CPU threads, for FAISS.
        seed: Draws what a kind is trained on, and the queries that recall is measured with.

    Returns:
        The manifest, which says what recall the index reaches.

    Raises:
        ArtifactError: A vector is missing, not finite, not of unit length or of another dimension; an id occurs
            twice; or Milvus does not answer.
        ParameterError: The gallery cannot have a size.
    """
    if params.kind != "milvus":
        return build_faiss_index(shard_folder, out_folder, params, threads, seed)
    gallery, gallery_hash = ShardSet.open(shard_folder), sha256_file(Path(shard_folder) / MANIFEST)
    if gallery.rows == 0:
        raise ArtifactError(f"{shard_folder}: no vectors to index")
    collection, ids = Collection(params, f"cir_{gallery_hash[:24]}"), IdsOnce(gallery.folder)
    for names, rows in vectors(gallery):
        if not ids.names:
            collection.create(rows.shape[1])
        first = len(ids.names)
        ids.add(names)
        collection.upsert(range(first, first + len(names)), rows, ({"path": name} for name in names))
    collection.finish()
    manifest: dict[str, Any] = {
        "kind": params.kind,
        "dim": rows.shape[1],
        "rows": gallery.rows,
        "metric": "inner_product",
        "collection": collection.name,
        "params": asdict(params),
        "gallery": gallery_hash,
        "gallery_identity": gallery.identity,
    }
    manifest |= measured(MilvusIndex(collection, rows.shape[1], list(ids.names), manifest), gallery, params, seed)
    with write_atomically(out_folder) as aside:
        aside.mkdir()
        write_table(aside / IDS, ids.table(), {"gallery": gallery_hash})
        write_json(aside / MANIFEST, manifest)
    return manifest


def load_index(folder: str | Path, gallery: str | Path | None = None, threads: int = 1) -> Index:
    """Open an index of any kind.

    Args:
        folder: The index.
        gallery: The shard set that it must be of; None: not checked.
        threads: CPU threads of a search, for FAISS.

    Returns:
        The index.

    Raises:
        ArtifactError: It is missing, damaged or made from something else.
    """
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != "milvus":
        return Index.open(folder, gallery, threads)
    if gallery is not None and sha256_file(Path(gallery) / MANIFEST) != manifest["gallery"]:
        raise ArtifactError(f"{folder}: not built from the present {gallery}")
    ids = ShardSet.open(folder / IDS, identity={"gallery": manifest["gallery"]}).table()["id"].to_pylist()
    params = IndexParams(**manifest["params"])
    collection = Collection(params, manifest["collection"])
    rows = len(collection) if collection.open() else 0
    if rows != len(ids):
        found = f"{rows} vectors of {len(ids)} are in Milvus at {params.uri}"
        raise ArtifactError(f"{folder}: {found}; `dvc repro --force --single-item build_index` writes them")
    return MilvusIndex(collection, manifest["dim"], ids, manifest)
