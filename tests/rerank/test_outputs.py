"""The stage's outputs of a small benchmark, and what the report makes of them."""

from __future__ import annotations

import dataclasses
import io

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import ArtifactError, read_json, schemas, write_table
from pipeline.config import ParameterError, RerankerParams, RerankParams
from pipeline.report.metrics import RankedQueries
from pipeline.report.reranked import read_reranked, recall_changes, reranking_table
from pipeline.report.tables import markdown
from pipeline.rerank.outputs import COST, BenchmarkReranking
from pipeline.rerank.trained import check_trained
from pipeline.rerank.verify import Reranker
from pipeline.retrieval import Query
from pipeline.retrieval.benchmarks import find_benchmarks
from pipeline.retrieval.rankings import Ranking, read_rankings, write_rankings
from stages import rerank
from tests.rerank.test_order import Brightness
from tests.sections import plain_params, section


def png(value):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """Two queries whose targets are the brightest images, and stand second in their ranked lists."""
    monkeypatch.chdir(tmp_path)
    images = [{"image_id": f"i{value}", "bytes": png(value), "width": 8, "height": 8} for value in (0, 100, 200, 250)]
    queries = [
        {
            "query_id": f"q{number}",
            "reference_id": "i0",
            "modifications": ["brighter"],
            "target_ids": ["i250"],
            "subset_ids": ["i0", "i100", "i200"],
            "category": "tone",
            "shared_concept": "",
        }
        for number in range(2)
    ]
    folder = tmp_path / "data/benchmarks/emoji_cir"
    write_table(folder / "images", pa.Table.from_pylist(images, schema=schemas.IMAGES), {})
    write_table(folder / "queries", pa.Table.from_pylist(queries, schema=schemas.QUERIES), {})
    rankings = [
        Ranking(f"q{number}", ("i100", "i250", "i200"), (0.9, 0.8, 0.7), ("i100", "i200")) for number in range(2)
    ]
    write_rankings("data/retrieved/emoji_cir/rankings/slerp", "slerp", rankings, {"space": "clip"})
    return find_benchmarks()[0]


def test_a_stage_writes_new_orders_and_their_cost(benchmark, tmp_path):
    params = dataclasses.replace(plain_params(), rerank=section(RerankParams, methods=["slerp"], top=2, weight=1.0))
    out, before = tmp_path / "out", tmp_path / "data/retrieved/emoji_cir"
    run = BenchmarkReranking(params, benchmark, before, out)
    run.run(Reranker(section(RerankerParams), Brightness()))
    found = read_rankings(out / "rankings/slerp")
    assert found.by_query["q0"].ranked_ids == ("i250", "i100", "i200")
    assert found.by_query["q0"].subset_ranked_ids == ("i200", "i100")
    assert found.identity["space"] == "clip" and found.identity["rerank"]["top"] == 2
    assert found.identity["reranker"]["answers"] == params.reranker.answers
    cost = read_json(out / COST)["slerp"]
    assert (cost["queries"], cost["pairs"]) == (2, 6) and cost["seconds"] > 0

    first = RankedQueries.read(benchmark.path / "queries", before / "rankings")
    scores = read_reranked(out, benchmark.path / "queries", first, samples=10, seed=0)
    row = scores.metrics["slerp"]
    assert (row["before"]["R@1"], row["after"]["R@1"], row["pairs"]) == (0.0, 100.0, 3.0)
    assert row["change"]["R@1"] == {"difference": 100.0, "low": 100.0, "high": 100.0}
    table = markdown([reranking_table("emoji_cir", scores)])
    assert "Mean R@1 | R@1 verified | Difference" in table and "| 0.0 | 100.0 | +100.0 [100.0, 100.0] |" in table
    with pytest.raises(ArtifactError, match="slerp was verified and has no answers"):
        read_reranked(out, benchmark.path / "queries", dataclasses.replace(first, by_method={}), 10, 0)


def answers(*tops):
    """Queries of two kinds, three and one, and one method's first answers to them."""
    queries = [Query(str(row), "r", ("x",), ("right",), category=kind) for row, kind in enumerate("aaab")]
    return RankedQueries(
        queries, {"slerp": [Ranking(str(row), (top, "z"), (1.0, 0.5)) for row, top in enumerate(tops)]}
    )


def test_a_difference_is_the_mean_over_kinds_and_its_interval_is_paired():
    before, after = answers("right", "other", "other", "right"), answers("right", "right", "other", "other")
    found = recall_changes(before, after, "slerp", samples=2000, seed=0)["R@1"]
    assert found["difference"] == pytest.approx((100 / 3 - 100) / 2, abs=0.01)
    # The one query of kind b is always drawn; of kind a, 0 to 3 of the draws are the one that changed.
    assert (found["low"], found["high"]) == (-50.0, 0.0)
    same = recall_changes(before, before, "slerp", samples=10, seed=0)["R@1"]
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_without_methods_the_stage_leaves_an_empty_folder(benchmark, monkeypatch):
    monkeypatch.setattr(rerank, "load_params", plain_params)
    rerank.FOLDER.mkdir(parents=True)
    (rerank.FOLDER / "of an earlier run").touch()
    rerank.main()
    assert not list(rerank.FOLDER.iterdir())


def test_bad_parameters_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=r"rerank.top: 60 is more than the 50 images of a ranked list"):
        plain_params(rerank={"methods": ["slerp"], "top": 60}, retrieve={"top_k": 50})
    small = section(RerankerParams, path="models/backbones/unknown")
    with pytest.raises(ParameterError, match=r"models/backbones/unknown is not there; `python -m stages.backbones"):
        check_trained(small)
    for template in ("{reference}{modification}", "{candidate}{reference}{modification}", "{reference}{candidate}{x}"):
        with pytest.raises(ParameterError, match=r"reranker.template: "):
            section(RerankerParams, template=template)
    with pytest.raises(ParameterError, match=r"reranker.answers: \['yes'\] are not two answers"):
        section(RerankerParams, answers=["yes"])
