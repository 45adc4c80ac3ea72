"""Galleries in Milvus: the same answers as FAISS, from a file and from a server's process."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.artifacts import ArtifactError, schemas, write_table
from pipeline.config import IndexParams
from pipeline.retrieval import build_index, load_index
from pipeline.retrieval.milvus import Collection, MilvusIndex, connect
from tests.sections import section

ROWS, DIM = 400, 16


@pytest.fixture
def params(milvus) -> IndexParams:
    return section(IndexParams, kind="milvus", uri=milvus, recall_queries=64)


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def gallery(tmp_path) -> Path:
    vectors = unit(ROWS, 1)
    vectors[7] = vectors[3]  # a tie
    rows = [{"id": f"image {number}", "vector": vector} for number, vector in enumerate(vectors)]
    write_table(tmp_path / "gallery", pa.Table.from_pylist(rows, schema=schemas.embeddings(DIM)), {"model": "x"})
    return tmp_path / "gallery"


@pytest.mark.parametrize("kind", ["FLAT", "HNSW"])
def test_it_answers_as_faiss_does(params, gallery, tmp_path, kind):
    manifest = build_index(gallery, tmp_path / "milvus", replace(params, milvus_index=kind))
    build_index(gallery, tmp_path / "flat", replace(params, kind="flat"))
    assert manifest["recall@10"] >= 0.99 and manifest["rows"] == ROWS
    connect(params.uri).release_collection(manifest["collection"])  # as it is in a process that has just begun
    found, expected = load_index(tmp_path / "milvus", gallery), load_index(tmp_path / "flat", gallery)
    assert isinstance(found, MilvusIndex) and found.dim == DIM and len(found) == ROWS
    queries = unit(20, 2)
    queries[0] = expected.vectors(["image 3"])[0]
    exclude = [f"image {number}" for number in range(20)]
    for given in (queries, np.stack([queries, unit(20, 3)], axis=1)):
        for fuse in ("mean", "max"):
            ids, scores = found.search(given, 10, exclude, fuse)
            expected_ids, expected_scores = expected.search(given, 10, exclude, fuse)
            assert ids == expected_ids
            np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    assert found.search(queries[:1], 2)[0] == [["image 3", "image 7"]]
    some = ["image 9", "image 3", "image 350"]
    assert found.rank(queries[0], some) == expected.rank(queries[0], some)
    np.testing.assert_allclose(found.vectors(some), expected.vectors(some), atol=1e-6)


def test_upsert_delete_and_filters(params):
    collection, vectors = Collection(params, "cir_test"), unit(30, 4)
    collection.create(DIM)
    known = [{"path": f"{n}.png", "year": 2000 + n % 3, **({"tag": 'ä "b"'} if n % 2 else {})} for n in range(30)]
    collection.upsert(range(30), vectors, known)
    collection.upsert([4], vectors[5:6], [{"year": 1999}])
    collection.delete([6, 7, 1000])
    collection.finish()
    assert collection.open() and len(collection) == 28
    np.testing.assert_allclose(collection.vectors([4, 6])[4], vectors[5], atol=1e-6)

    def found(where: str) -> set[int]:
        return {slot for slot, _, _ in next(collection.search(vectors[:1], 30, where))}

    assert found('metadata["year"] == 1999') == {4}
    assert found("") == set(range(30)) - {6, 7}


def test_a_collection_that_is_gone_is_named(params, gallery, tmp_path):
    build_index(gallery, tmp_path / "milvus", params)
    connect(params.uri).drop_collection(load_index(tmp_path / "milvus").collection.name)
    with pytest.raises(ArtifactError, match="0 vectors of 400 are in Milvus at .*`dvc repro --force"):
        load_index(tmp_path / "milvus")


def test_a_path_that_another_process_has_open_is_named(gallery, tmp_path):
    pytest.importorskip("milvus_lite", reason="the extra `milvus` is not installed")
    held = tmp_path / "held.db"
    code = "import sys; from pymilvus import MilvusClient; MilvusClient(sys.argv[1]); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout.readline()
        with pytest.raises(ArtifactError, match=r"held\.db: .*; another process may have it open"):
            build_index(gallery, tmp_path / "milvus", section(IndexParams, kind="milvus", uri=str(held)))
        process.communicate(b"\n")


def test_a_server_that_does_not_answer_is_named(gallery, tmp_path):
    away = section(IndexParams, kind="milvus", uri="http://127.0.0.1:9")
    pytest.importorskip("pymilvus", reason="the extra `milvus` is not installed")
    with pytest.raises(ArtifactError, match=r"index\.uri: http://127\.0\.0\.1:9: "):
        build_index(gallery, tmp_path / "milvus", away)
    assert not (tmp_path / "milvus").exists()
