"""The index's bytes, ids and scores depend neither on the number of threads nor on how queries are batched."""

import faiss
import numpy as np
import pyarrow as pa
import pytest

from pipeline.artifacts import schemas, write_table
from pipeline.config import IndexParams
from pipeline.retrieval import Index, build_index
from tests.sections import section


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 24)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    rows = [{"id": f"row {number}", "vector": vector} for number, vector in enumerate(unit(1500, 0))]
    folder = tmp_path_factory.mktemp("threads") / "gallery"
    write_table(folder, pa.Table.from_pylist(rows, schema=schemas.embeddings(24)), {}, rows_per_shard=400)
    yield folder
    faiss.omp_set_num_threads(1)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_an_index_and_its_answers_are_the_same_with_any_threads_and_batches(gallery, tmp_path, kind, storage):
    params = section(IndexParams, kind=kind, storage=storage, recall_queries=20)
    built = [build_index(gallery, tmp_path / str(threads), params, threads=threads) for threads in (1, 2)]
    assert built[0] == built[1]  # the index's SHA-256 and its measured recall among it
    queries = unit(37, 1)
    whole = Index.open(tmp_path / "1", threads=1).search(queries, 12)
    assert Index.open(tmp_path / "2", threads=2).search(queries, 12) == whole
    opened = Index.open(tmp_path / "1", threads=2)
    parts = [opened.search(queries[start : start + 5], 12) for start in range(0, 37, 5)]
    assert tuple([row for part in parts for row in part[number]] for number in (0, 1)) == whole
