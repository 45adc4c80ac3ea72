"""Building indexes: recall against numpy, bounded memory, repeatable bytes, sizes that cannot be."""

import tracemalloc
from dataclasses import replace

import faiss
import numpy as np
import pyarrow as pa
import pytest

from pipeline.artifacts import ArtifactError, ShardSet, read_json, schemas, write_table
from pipeline.config import IndexParams, ParameterError
from pipeline.retrieval import Index, build_index, kinds
from pipeline.retrieval.gallery_vectors import sample, vectors_at
from pipeline.retrieval.recall import recall_against_exact
from tests.sections import plain_params, section

DIM, ROWS = 16, 3000
KINDS = {
    "flat": section(IndexParams, kind="flat"),
    "flat in float16": section(IndexParams, kind="flat", storage="float16"),
    "hnsw": section(IndexParams, kind="hnsw", hnsw_m=16, ef_construction=64, ef_search=64),
    "hnsw in float16": section(
        IndexParams, kind="hnsw", storage="float16", hnsw_m=16, ef_construction=64, ef_search=64
    ),
    "ivfpq": section(IndexParams, kind="ivfpq", nprobe=16, pq_parts=8),
    "ivfpq in float16": section(
        IndexParams, kind="ivfpq", storage="float16", nlist=20, nprobe=8, pq_parts=8, train_rows=1000
    ),
}


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(rows=ROWS, seed=0):
    centres, rng = np.random.default_rng(0).normal(size=(60, DIM)), np.random.default_rng(seed + 1)
    return unit(centres[rng.integers(0, 60, rows)] + 0.5 * rng.normal(size=(rows, DIM)))


def write_gallery(folder, vectors, rows_per_shard=500):
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    ids = [f"image-{row}" for row in range(len(vectors))]
    table = pa.table({"id": ids, "vector": column}, schema=schemas.embeddings(vectors.shape[1], pa.float32()))
    write_table(folder, table, {"model": "test"}, rows_per_shard)
    return folder


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return write_gallery(tmp_path_factory.mktemp("clustered") / "gallery", clustered())


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_finds_what_numpy_finds(gallery, tmp_path, name):
    manifest = build_index(gallery, tmp_path / "index", KINDS[name])
    index = Index.open(tmp_path / "index", gallery=gallery)
    vectors, queries = clustered(), clustered(100, seed=1)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    ids, scores = index.search(queries, 10)
    found = [set(index.positions(row)) for row in ids]
    assert np.mean([len(found[row] & set(exact[row])) / 10 for row in range(100)]) >= (1.0 if name == "flat" else 0.95)
    assert manifest["recall@10"] >= (1.0 if name == "flat" else 0.9) and manifest["recall_queries"] == 256
    best = np.array([queries[row] @ vectors[index.positions(ids[row])].T for row in range(100)])
    assert np.abs(best - scores).max() < (1e-3 if "float16" in name else 1e-6)


def test_the_measured_recall_is_the_one_counted_by_hand(gallery, tmp_path):
    """A graph too sparse and a search too narrow, so that there is something to miss."""
    params = section(IndexParams, kind="hnsw", hnsw_m=2, ef_construction=4, ef_search=1)
    manifest = build_index(gallery, tmp_path / "index", params, seed=7)
    index, vectors = Index.open(tmp_path / "index"), clustered()
    rng = np.random.default_rng([7, ROWS])
    references = rng.choice(ROWS, 256, replace=False)
    others = (references + rng.integers(1, ROWS, 256)) % ROWS
    queries = unit(vectors[references] + vectors[others])
    hits = 0
    for row, reference in enumerate(references):
        scores = queries[row] @ vectors.T
        scores[reference] = -1
        ids, _ = index.search(queries[row : row + 1], 10, exclude=[f"image-{reference}"])
        hits += len(set(index.positions(ids[0])) & set(np.argsort(-scores)[:10]))
    assert manifest["recall@10"] == round(hits / 2560, 4) < 0.95
    assert read_json(tmp_path / "index" / "manifest.json") == manifest


def test_recall_of_twins_and_of_tiny_galleries(tmp_path):
    """Which of two equal images is returned makes no miss; one image alone leaves nothing to find."""
    twins = np.repeat(clustered(20), 30, axis=0)
    folder = write_gallery(tmp_path / "twins", twins)
    built = build_index(folder, tmp_path / "twins_index", section(IndexParams, kind="flat"))
    index = Index.open(tmp_path / "twins_index")

    class OtherTwins:
        """Answers with copies of the right images that rank later."""

        ids, positions = index.ids, staticmethod(index.positions)

        def __len__(self):
            return len(index)

        def search(self, queries, top_k, exclude):
            found, scores = index.search(queries, 29, exclude)
            return [names[::-1][:top_k] for names in found], scores

    assert built["recall@10"] == recall_against_exact(OtherTwins(), ShardSet.open(folder), 50, 0) == 1.0
    for rows, expected in ((1, None), (2, 1.0)):
        manifest = build_index(
            write_gallery(tmp_path / f"{rows}", clustered(rows)), tmp_path / f"{rows}_index", section(IndexParams)
        )
        assert manifest["recall@10"] == expected
    assert "recall@10" not in build_index(folder, tmp_path / "unmeasured", section(IndexParams, recall_queries=0))


@pytest.mark.parametrize("name", KINDS)
def test_two_builds_are_the_same_bytes(gallery, tmp_path, name):
    for copy in "ab":
        build_index(gallery, tmp_path / copy, KINDS[name], seed=3)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 4
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_the_seed_draws_the_training_sample(gallery, tmp_path):
    params = KINDS["ivfpq in float16"]
    hashes = [build_index(gallery, tmp_path / f"{seed}", params, seed=seed)["index_sha256"] for seed in (0, 1)]
    assert hashes[0] != hashes[1]
    drawn = sample(ShardSet.open(gallery), 700, seed=5)
    assert len(np.unique(drawn, axis=0)) == 700
    known = {row.tobytes() for row in vectors_at(ShardSet.open(gallery), np.arange(ROWS))}
    assert all(row.tobytes() in known for row in drawn)


def test_rows_come_in_the_order_they_are_asked_in(gallery):
    positions = np.array([2999, 0, 501, 501, 17])
    assert np.allclose(vectors_at(ShardSet.open(gallery), positions), clustered()[positions], atol=1e-7)


def test_building_holds_few_shards_at_a_time(tmp_path, monkeypatch):
    """FAISS's memory is not Python's: what tracemalloc sees is everything but the index."""
    rng, shard = np.random.default_rng(0), 500
    rows, dim = 40 * shard, 64
    folder = write_gallery(tmp_path / "gallery", unit(rng.normal(size=(rows, dim))), shard)
    alive, most, read = 0, 0, ShardSet.shards

    def counted(self, columns=None):
        nonlocal alive, most
        for table in read(self, columns):
            alive += 1
            most = max(most, alive)
            yield table
            alive -= 1

    monkeypatch.setattr(ShardSet, "shards", counted)
    params = section(IndexParams, kind="ivfpq", nlist=8, train_rows=1000, recall_queries=64)
    tracemalloc.start()
    build_index(folder, tmp_path / "index", params)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.75 * rows * dim * 4, "the gallery's vectors, ids and all, would be more"
    assert most <= 2  # the first is looked at for its dimension


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "hash"}, "index.kind: 'hash'"),
        ({"storage": "int8"}, "index.storage: 'int8'"),
        ({"device": "gpu"}, "index.device: 'gpu'"),
        ({"hnsw_m": 1}, "index.hnsw_m: 1 is not at least 2"),
        ({"ef_search": 0}, "index.ef_search: 0"),
        ({"ef_construction": 0}, "index.ef_construction: 0"),
        ({"nlist": -1}, "index.nlist: -1"),
        ({"nlist": 8, "nprobe": 9}, "index.nprobe: 9 is more than index.nlist 8"),
        ({"pq_bits": 5}, "index.pq_bits: 5"),
        ({"pq_parts": -2}, "index.pq_parts: -2"),
        ({"refine_factor": 0}, "index.refine_factor: 0"),
        ({"train_rows": 0}, "index.train_rows: 0"),
        ({"recall_queries": -1}, "index.recall_queries: -1"),
        ({"ef": 3}, "index.ef"),
    ],
)
def test_a_wrong_size_is_named(values, message):
    with pytest.raises(ParameterError, match=message.replace(".", r"\.")):
        plain_params(index=values)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pq_parts": 5}, ParameterError, "index.pq_parts: 5 does not divide the vectors' 16 dimensions"),
        ({"train_rows": 600}, ParameterError, "index.train_rows: 600 vectors are too few, 624 are needed"),
        (
            {"nlist": 2000, "train_rows": 1000},
            ParameterError,
            "index.train_rows: 1000 vectors are too few, 2000 are needed",
        ),
        ({"pq_bits": 8}, ArtifactError, "gallery: an ivfpq index needs at least 9984 vectors, not 3000; use flat"),
    ],
)
def test_sizes_that_the_gallery_cannot_have_leave_nothing(gallery, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        build_index(gallery, tmp_path / "index", replace(section(IndexParams, kind="ivfpq"), **changes))
    assert list(tmp_path.iterdir()) == []


def test_sizes_reach_faiss(gallery, tmp_path):
    def made(params):
        build_index(gallery, tmp_path / "index", replace(params, recall_queries=0))
        return faiss.read_index(str(tmp_path / "index" / "index.faiss"))

    index = made(section(IndexParams, kind="hnsw", hnsw_m=6, ef_construction=33, ef_search=44))
    hnsw = index.hnsw
    assert (hnsw.nb_neighbors(0), hnsw.nb_neighbors(1), hnsw.efConstruction, hnsw.efSearch) == (12, 6, 33, 44)
    index = made(section(IndexParams, kind="ivfpq", nlist=12, nprobe=5, pq_parts=8, refine_factor=3))
    ivf = kinds.inverted_lists(index)
    assert (ivf.nlist, ivf.nprobe, ivf.pq.M, ivf.pq.nbits, index.k_factor) == (12, 5, 8, 4, 3)
    index = made(section(IndexParams, kind="ivfpq"))
    ivf = kinds.inverted_lists(index)
    assert (ivf.nlist, ivf.nprobe, ivf.pq.M) == (3000 // 64, 8, 4)
    kinds.limit_search(ivf, ef_search=7, nprobe=100)
    assert ivf.nprobe == 46


def test_threads_may_build_a_graph_when_bytes_do_not_matter(gallery, tmp_path):
    params = replace(KINDS["hnsw"], deterministic=False)
    assert build_index(gallery, tmp_path / "index", params, threads=2)["recall@10"] > 0.9
    assert faiss.omp_get_max_threads() == 2
    faiss.omp_set_num_threads(1)


def test_an_index_does_not_open_over_another_gallery(gallery, tmp_path):
    other = write_gallery(tmp_path / "other", clustered(seed=9))
    for name in ("hnsw", "ivfpq"):
        build_index(gallery, tmp_path / name, KINDS[name])
        with pytest.raises(ArtifactError, match=f"{name}: not built from the present"):
            Index.open(tmp_path / name, gallery=other)
        assert len(Index.open(tmp_path / name, gallery=gallery)) == ROWS
