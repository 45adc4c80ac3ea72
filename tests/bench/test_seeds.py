"""Rows over training seeds, from numbers by hand; and a seed's folder."""

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import seeds
from bench.profiles import profile
from bench.seeds import GROUPS, app, lay_out, metrics, pooled, ranks, result, row_of, spread
from pipeline.artifacts import ArtifactError
from pipeline.config import load_params
from pipeline.report.metrics import RankedQueries
from pipeline.retrieval.queries import Query
from pipeline.retrieval.rankings import Ranking

OTHERS = [f"other {number}" for number in range(10)]


def run(**places):
    """Four queries of two kinds, whose target `t` each method has at these places; 0: nowhere."""
    queries = [
        Query(str(number), "r", ("text",), ("t",), category=kind) for number, kind in enumerate(("a", "a", "b", "b"))
    ]
    lists = {
        method: [
            Ranking(query.query_id, tuple(OTHERS[: place - 1] + ["t"] if place else OTHERS), ())
            for query, place in zip(queries, found, strict=True)
        ]
        for method, found in places.items()
    }
    return RankedQueries(queries, lists)


def test_the_spread_is_the_standard_deviation_of_a_sample():
    assert spread([50.0, 53.0, 56.0]) == pytest.approx(3.0) and spread([50.0]) == 0.0


def test_ranks_count_from_one_and_a_missing_target_is_zero():
    assert ranks([["x", "t"], ["t"], ["x"]], [["t"], ["t", "x"], ["t"]]) == [2, 1, 0]


def test_metrics_are_means_over_kinds():
    found = metrics(run(own=(1, 0, 2, 6)), "own")
    assert found == {"R@1": 25.0, "R@5": 50.0, "R@10": 75.0, "R@50": 75.0, "mAP@5": pytest.approx(37.5)}  # (1/2+1/4)/2


def test_a_row_pools_seeds_query_by_query():
    runs = [run(own=(1, 0, 1, 1), base=(1, 0, 0, 0)), run(own=(1, 1, 1, 0), base=(1, 0, 0, 0))]
    assert np.array_equal(pooled(runs, "own"), [1.0, 0.5, 1.0, 0.5])
    row = row_of(runs, "own", ["base", "own"], samples=400)
    assert row["R@10"]["value"] == 75.0 and row["seeds"] == [75.0, 75.0] and row["spread"]["value"] == 0.0
    # kind a: (0, 1/2), kind b: (1, 1/2): 1/4 and 3/4, so 1/2; a resampled kind lies between its two queries
    assert row["R@10 over base"]["value"] == 50.0
    assert row["R@10 over base"]["low"] == pytest.approx(25.0, abs=0.1)
    assert row["R@10 over base"]["high"] == pytest.approx(75.0, abs=0.1)
    assert "R@10 over own" not in row


def test_a_result_keeps_ranks_of_what_was_trained_alone():
    group = GROUPS["fusion_diff"]
    methods = dict.fromkeys(("stage1_only", "fusion_diff", *group.against), (1, 0, 3, 1))
    runs = {seed: {"emoji_cir": run(**methods)} for seed in (0, 5)}
    found = result(group, runs, profile("offline"))
    kept = found["benchmarks"]["emoji_cir"]["ranks"]
    assert kept == {name: {"0": "1 0 3 1", "5": "1 0 3 1"} for name in ("stage1_only", "fusion_diff")}
    assert found["seeds"] == [0, 5] and "R@10 over cirevl" in found["columns"]
    assert "R@10 over cirevl" not in found["benchmarks"]["emoji_cir"]["rows"]["cirevl"]


def test_a_seeds_folder_links_the_inputs_and_has_its_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data/pairs", "data/gallery/emoji_cir/clip", "data/gallery/emoji_cir/diffcomp"):
        (tmp_path / name).mkdir(parents=True)
    folder = seeds.SCRATCH / "diffcomp" / "7"
    for _ in range(2):
        lay_out(folder, profile("offline"), 7, ["data/pairs"])
    assert load_params(folder / "params.yaml").seed == 7
    assert (folder / "data/pairs").resolve() == tmp_path / "data/pairs"
    assert [path.name for path in (folder / "data/gallery/emoji_cir").iterdir()] == ["clip"]
    with pytest.raises(ArtifactError, match="data/fused: not there; `dvc repro` makes it"):
        lay_out(folder, profile("offline"), 7, ["data/fused"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "peers"], "--only: 'peers' is not one of diffcomp, fusion_diff"),
        (["--seeds", "0,x"], "--seeds: '0,x' is no list of numbers with commas"),
    ],
)
def test_a_wrong_option_is_one_line(arguments, said):
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code != 0 and said in outcome.output
