"""bench/index.py on a few thousand short vectors."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.index import TARGETS, _sweep, app, compare, recall
from bench.vectors import Data
from pipeline.artifacts import read_json, write_json

SMALL = ["--rows", "2000", "--dim", "32", "--queries", "50", "--threads", "1"]


def run(tmp_path, *options):
    return CliRunner().invoke(
        app, [*SMALL, "--out", str(tmp_path / "out.json"), "--scratch", str(tmp_path / "scratch"), *options]
    )


def test_it_measures_every_index_and_goes_on_where_it_stopped(tmp_path):
    ended = run(tmp_path, "--kinds", "hnsw")
    assert ended.exit_code == 0, ended.output
    result = read_json(tmp_path / "out.json")
    assert list(result["indexes"]) == ["flat", "hnsw"] and not (tmp_path / "scratch").exists()
    assert str(tmp_path) not in json.dumps(result)
    for measured in result["indexes"].values():
        assert (
            measured["memory_mib"]["searched"]
            >= measured["memory_mib"]["built"]
            >= measured["memory_mib"]["before"]
            > 0
        )
        for target in TARGETS:
            at = measured["at"][f"{target:.2f}"]
            assert at["recall@10"] >= target and at["together"]["queries_per_s"] > 0 < at["one_by_one"]["queries_per_s"]
            assert at["together"]["queries_per_cpu_s"] > 0 and at["together"]["least"] <= at["together"]["most"]
            assert at["index_search"]["recall@10"] >= at["recall@10"]
    assert result["indexes"]["hnsw"]["build"]["build_s"] > 0
    assert set(result["comparison"]) == {"hnsw at 0.95", "hnsw at 0.99"}

    result["indexes"]["hnsw"]["build"]["build_s"] = 123.0
    write_json(tmp_path / "out.json", result)
    assert run(tmp_path, "--kinds", "hnsw").exit_code == 0
    assert read_json(tmp_path / "out.json")["indexes"]["hnsw"]["build"]["build_s"] == 123.0


def test_an_unknown_index_is_refused(tmp_path):
    ended = run(tmp_path, "--kinds", "flat,annoy")
    assert ended.exit_code == 1 and "'annoy' is not one of flat, hnsw, ivfpq, usearch" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_peer_answers_like_the_others(tmp_path):
    pytest.importorskip("usearch")
    from bench.engines import Flat, Usearch

    data, found = Data(1500, 32, 40), {}
    data.write(tmp_path)
    queries = np.load(tmp_path / "queries.npy")
    for kind in (Flat, Usearch):
        engine = kind(data, tmp_path, 1)
        engine.build()
        if kind is Usearch:
            engine.limit(expansion_search=200)
        found[kind] = engine.search(queries, 10)
    assert recall(found[Usearch], found[Flat]) > 0.98


def test_the_data_are_repeatable_unit_vectors_in_clusters(tmp_path):
    data = Data(3000, 48, 20)
    for copy in "ab":
        data.write(tmp_path / copy)
        assert data.is_written(tmp_path / copy) and not Data(3000, 48, 20, seed=1).is_written(tmp_path / copy)
    assert (tmp_path / "a" / "vectors.f16").read_bytes() == (tmp_path / "b" / "vectors.f16").read_bytes()
    vectors = np.concatenate(list(data.read(tmp_path / "a")))
    assert vectors.shape == (3000, 48) and np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
    queries = np.load(tmp_path / "a" / "queries.npy")
    cosines = np.sort(queries @ vectors.T, axis=1)
    assert cosines[:, -10].mean() > 0.5 and abs(np.median(cosines)) < 0.1
    assert cosines[:, -1].max() < 0.99, "no query is in the set"


def test_a_sweep_finds_the_least_value_for_each_target():
    def at(value):
        return {"value": value, "recall@10": round(1 - 1 / value, 5)}  # 0.95 at 20, 0.99 at 100

    points = {point["value"]: point["recall@10"] for point in _sweep(at, (2, 8, 32, 128, 512))}
    assert min(value for value, reached in points.items() if reached >= 0.95) == 20
    assert 100 <= min(value for value, reached in points.items() if reached >= 0.99) <= 102
    assert 512 not in points, "nothing beyond the last target is measured"
    flat = _sweep(lambda value: {"value": value, "recall@10": 0.5}, (1, 2, 4, 8))
    assert [point["value"] for point in flat] == [1, 2]


def test_recall_and_ratios_by_hand():
    assert recall(np.array([[1, 2, 9], [7, -1, -1]]), np.array([[2, 1, 3], [7, 8, 6]])) == 0.5
    rate = lambda clock, own: {"at": {"0.95": {"together": {"queries_per_s": clock, "queries_per_cpu_s": own}}}}  # noqa: E731
    assert compare({"flat": rate(10.0, 5.0), "hnsw": rate(250.0, 150.0), "usearch": rate(200.0, 100.0)}) == {
        "hnsw at 0.95": {
            "times flat": 25.0,
            "times usearch": 1.25,
            "times flat, processor time": 30.0,
            "times usearch, processor time": 1.5,
        },
        "usearch at 0.95": {"times flat": 20.0, "times flat, processor time": 20.0},
    }
