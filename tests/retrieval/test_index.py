import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import ArtifactError, schemas, write_table
from pipeline.config import IndexParams
from pipeline.retrieval import Index, Query, build_index, rank_queries, target_similarities
from tests.sections import section


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def write_gallery(folder, vectors, ids=None, dtype=pa.float32(), rows_per_shard=10_000):
    ids = ids or [f"image-{row}" for row in range(len(vectors))]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), type=dtype), vectors.shape[1])
    table = pa.table({"id": ids, "vector": column}, schema=schemas.embeddings(vectors.shape[1], dtype))
    write_table(folder, table, {"model": "test"}, rows_per_shard)
    return folder


def open_index(tmp_path, vectors, kind="flat", **options):
    write_gallery(tmp_path / "gallery", vectors, **options)
    build_index(tmp_path / "gallery", tmp_path / kind, section(IndexParams, kind=kind))
    return Index.open(tmp_path / kind, gallery=tmp_path / "gallery")


def naive(vectors, query, top_k, excluded=None):
    """Sorted by hand: score first, gallery order among equals."""
    products = [sum(float(a) * float(b) for a, b in zip(row, query, strict=True)) for row in vectors]
    scored = [(-float(np.float32(product)), position) for position, product in enumerate(products)]
    return [position for _, position in sorted(scored) if position != excluded][:top_k]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_search_equals_a_naive_sort(tmp_path, kind):
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, 200, 12), unit(rng, 30, 12)
    index = open_index(tmp_path, vectors, kind, rows_per_shard=64)
    ids, scores = index.search(queries, 10, exclude=[f"image-{row}" for row in range(30)])
    for row in range(30):
        assert ids[row] == [f"image-{p}" for p in naive(vectors, queries[row], 10, row)]
        assert scores[row] == sorted(scores[row], reverse=True)
        assert np.array_equal(scores[row], index.scores_for(queries[row], ids[row]))


def test_ivfpq_with_refine_scores_exactly_and_finds_most(tmp_path):
    rng = np.random.default_rng(1)
    centres = unit(rng, 40, 16)
    vectors = centres[rng.integers(0, 40, 2000)] + 0.1 * rng.normal(size=(2000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = open_index(tmp_path, vectors, "ivfpq")
    ids, scores = index.search(vectors[:20], 10)
    exact = [{f"image-{p}" for p in naive(vectors, query, 10)} for query in vectors[:20]]
    assert np.mean([len(exact[row] & set(ids[row])) / 10 for row in range(20)]) > 0.9
    assert np.allclose(scores[0], index.scores_for(vectors[0], ids[0]), atol=0)
    with pytest.raises(ArtifactError, match="at least 624 vectors, not 100"):
        open_index(tmp_path / "small", vectors[:100], "ivfpq")


@settings(max_examples=15, deadline=None)
@given(copies=st.lists(st.integers(0, 3), min_size=2, max_size=120), top_k=st.integers(1, 130))
def test_ties_are_broken_by_gallery_order_whatever_the_batch(tmp_path_factory, copies, top_k):
    distinct = unit(np.random.default_rng(2), 4, 8)
    vectors = distinct[copies]
    index = open_index(tmp_path_factory.mktemp("ties"), vectors)
    together, scores = index.search(distinct, top_k)
    for row in range(4):
        order = sorted(range(len(copies)), key=lambda p: (-scores_of(index, distinct[row])[p], p))[:top_k]
        assert together[row] == [f"image-{p}" for p in order]
        assert index.search(distinct[row : row + 1], top_k)[0][0] == together[row]


def scores_of(index, query):
    return index.scores_for(query, index.ids)


def test_hypotheses_fuse_by_mean_or_max(tmp_path):
    rng = np.random.default_rng(3)
    vectors, hypotheses = unit(rng, 150, 6), unit(rng, 5, 4, 6)
    index = open_index(tmp_path, vectors)
    for fuse, reduce in (("mean", np.mean), ("max", np.max)):
        ids, _ = index.search(hypotheses, 8, fuse=fuse)
        for row in range(5):
            fused = reduce(vectors.astype(np.float64) @ hypotheses[row].T.astype(np.float64), axis=1)
            assert ids[row] == [f"image-{p}" for p in np.argsort(-fused, kind="stable")[:8]]
            assert index.rank(hypotheses[row], ids[row][::-1], fuse)[0] == ids[row]


def test_search_returns_what_the_gallery_has(tmp_path):
    vectors = unit(np.random.default_rng(4), 3, 4)
    index = open_index(tmp_path, vectors)
    ids, _ = index.search(vectors, 50, exclude=["image-0", None, "elsewhere"])
    assert [len(row) for row in ids] == [2, 3, 3] and "image-0" not in ids[0]
    assert "image-1" in index and "elsewhere" not in index and len(index) == 3


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivfpq"])
def test_the_same_gallery_gives_the_same_bytes(tmp_path, kind):
    write_gallery(tmp_path / "gallery", unit(np.random.default_rng(5), 700, 8), dtype=pa.float16())
    for copy in "ab":
        build_index(tmp_path / "gallery", tmp_path / copy, section(IndexParams, kind=kind), threads=2)
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda v: v.__setitem__((3, 0), np.nan), "row 'image-3' is not finite"),
        (lambda v: v.__setitem__(5, 2 * v[5]), "row 'image-5' is not of unit length"),
        (lambda v: v.__setitem__(6, 0), "row 'image-6' is not of unit length"),
    ],
)
def test_bad_vectors_are_named_and_leave_nothing(tmp_path, damage, message):
    vectors = unit(np.random.default_rng(6), 10, 4)
    damage(vectors)
    write_gallery(tmp_path / "gallery", vectors)
    with pytest.raises(ArtifactError, match=message):
        build_index(tmp_path / "gallery", tmp_path / "index", section(IndexParams))
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


def test_repeated_ids_and_empty_galleries_are_refused(tmp_path, repeated_ids):
    vectors = unit(np.random.default_rng(7), 3, 4)
    with pytest.raises(ArtifactError, match="row 'b' occurs twice"):
        build_index(
            write_gallery(tmp_path / "twice", vectors, ["a", "b", "b"]), tmp_path / "index", section(IndexParams)
        )
    with pytest.raises(ArtifactError, match="no vectors"):
        build_index(write_gallery(tmp_path / "none", vectors[:0]), tmp_path / "index", section(IndexParams))


def test_open_refuses_another_gallery_and_damage(tmp_path):
    vectors = unit(np.random.default_rng(8), 6, 4)
    open_index(tmp_path, vectors)
    with pytest.raises(ArtifactError, match="not built from the present"):
        Index.open(tmp_path / "flat", gallery=write_gallery(tmp_path / "other", vectors[::-1].copy()))
    (tmp_path / "flat" / "index.faiss").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="index.faiss"):
        Index.open(tmp_path / "flat")


def test_bad_queries_are_refused(tmp_path):
    index = open_index(tmp_path, unit(np.random.default_rng(9), 6, 4))
    query = np.ones((2, 4))
    for call, message in (
        (lambda: index.search(np.ones((2, 5)), 3), "4 dimensions"),
        (lambda: index.search(np.array([[0, 0, 0, 1], [0, 0, np.nan, 1]]), 3), "query 1 is not finite"),
        (lambda: index.search(query, 0), "top_k"),
        (lambda: index.search(query, 3, exclude=["image-0"]), "1 exclusions for 2 queries"),
        (lambda: index.search(query, 3, fuse="median"), "median"),
        (lambda: index.scores_for(query[0], ["image-0", "nowhere"]), "'nowhere'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_rank_queries_removes_the_reference_everywhere(tmp_path):
    vectors = unit(np.random.default_rng(10), 9, 4)
    index = open_index(tmp_path, vectors)
    query = Query("q", "image-2", ("redder",), ("image-4",), ("image-1", "image-2", "image-4"))
    [ranking] = rank_queries(index, [query], vectors[2:3], 5)
    assert "image-2" not in ranking.ranked_ids and len(ranking.ranked_ids) == len(ranking.scores) == 5
    assert sorted(ranking.subset_ranked_ids) == ["image-1", "image-4"]
    assert list(ranking.subset_ranked_ids) == [
        i for i in index.search(vectors[2:3], 9)[0][0] if i in ("image-1", "image-4")
    ]
    with pytest.raises(ValueError, match="2 vectors for 1 queries"):
        rank_queries(index, [query], vectors[:2], 5)


def test_target_similarities_are_those_of_the_best_target_and_the_best_other(tmp_path):
    vectors = unit(np.random.default_rng(11), 12, 4)
    index, query = open_index(tmp_path, vectors), unit(np.random.default_rng(12), 1, 4)
    scores = vectors @ query[0]
    worst, best = np.argsort(scores)[[0, -1]]
    asked = Query("q", "elsewhere", ("redder",), (f"image-{worst}", f"image-{best}"))
    rankings = rank_queries(index, [asked], query, 3)  # the worst target is not even listed
    [row] = target_similarities(index, "slerp", [asked], query, rankings)
    assert (row["query_id"], row["method"]) == ("q", "slerp")
    assert row["target"] == pytest.approx(scores[best], abs=1e-6) and row["other"] == pytest.approx(
        np.sort(scores)[-2], abs=1e-6
    )
    [alone] = target_similarities(index, "slerp", [asked], query, rank_queries(index, [asked], query, 1))
    assert alone["other"] is None
