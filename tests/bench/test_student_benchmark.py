"""The benchmark of students, over a dozen images."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.student import PASSES, app, settings
from pipeline.config import load_params
from pipeline.experiments.sweep import SweepInputs, SweepPaths
from pipeline.query.fusion_diff import FUSION_DIFF
from pipeline.query.fusion_diff_family import distilled_samplers
from pipeline.report.seeds import seeds_tables
from stages import distill_prior
from tests.stages.conftest import workspace  # noqa: F401  (a fixture)
from tests.stages.test_distill import TRAINING, taught, write  # noqa: F401
from tests.stages.test_sweep import IDS, ready  # noqa: F401

OUT = Path("reports/seeds/student.json")


@pytest.fixture
def clone(ready, taught):  # noqa: F811
    """As `dvc repro` leaves it: a prior, an adapter, and a benchmark's queries with what was said of them."""
    Path("data/triplets").mkdir(parents=True)
    for folder in (Path("data/fused"), Path("data/texts"), Path("models/backbones")):
        assert folder.is_dir()
    sampling = {"temperature": 0.5, "guidance_scale": 1.5, "anchor": 0.5}
    distil = TRAINING | {"enabled": False}
    write(distill=distil, retrieve=sampling, sweep={"benchmark": "val"}, report={"bootstrap": 20})
    return load_params()


def stored() -> dict:
    return json.loads(OUT.read_text())["benchmarks"]


def test_students_stand_beside_their_teacher(clone):
    outcome = CliRunner().invoke(app, ["--seeds", "0,1"], catch_exceptions=False)
    assert outcome.exit_code == 0 and "seed 1, temperature 1, guidance 2.5, anchor 0: teacher" in outcome.output
    found = json.loads(OUT.read_text())
    assert found["seeds"] == [0, 1] and len(found["benchmarks"]) == 4
    inputs = SweepInputs.load(clone, SweepPaths.of("val"))
    for name, retrieve in settings(clone.retrieve, 2.5).items():
        table = found["benchmarks"][f"val, {name}"]
        assert set(table["rows"]) == {"teacher", "teacher in 2 steps", *PASSES.values()} == set(table["ranks"])
        (mean, recall, _, _), *_ = inputs.score(retrieve)  # seed 0, as a sweep scores it
        assert mean == "mean" and table["rows"]["teacher"]["seeds"][0] == pytest.approx(recall, abs=0.006)
        assert "R@10 over teacher" in table["rows"]["student, one pass"]
        assert "R@10 over teacher" not in table["rows"]["teacher"]
    one = seeds_tables("reports/seeds")[0]
    assert one.title.startswith("Student by training seed: val, temperature") and "teacher takes" in one.caption


def test_what_is_trained_is_not_trained_again(clone, monkeypatch):
    run = ["--seeds", "3"]
    CliRunner().invoke(app, run, catch_exceptions=False)
    before = OUT.read_bytes()
    monkeypatch.setattr(distill_prior, "train", None)
    CliRunner().invoke(app, run, catch_exceptions=False)
    assert OUT.read_bytes() == before and not Path("models/student").exists()


def test_a_student_samples_as_the_retrieve_stage_does(clone, monkeypatch):
    CliRunner().invoke(app, ["--seeds", "4"], catch_exceptions=False)
    inputs = SweepInputs.load(replace(clone, seed=4), SweepPaths.of("val"))
    retrieve = replace(clone.retrieve, anchor=0.0, sampler="distilled", passes=1)
    (table,) = (part for name, part in stored().items() if name.endswith(f"{retrieve.guidance_scale:g}, anchor 0"))
    monkeypatch.chdir("data/seeds/student/4")
    sampler = distilled_samplers(retrieve, "cpu", {})[FUSION_DIFF]
    drawn = sampler.sample(IDS, inputs.texts[0].batch(torch.arange(12)), inputs.anchor, retrieve.hypotheses, seed=4)
    (_, recall, _, _), *_ = inputs.recall(drawn.numpy(), retrieve.fuse)
    assert table["rows"]["student, one pass"]["R@10"]["value"] == pytest.approx(recall, abs=0.006)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "0;1"], "--seeds: '0;1' is no list of numbers with commas"),
        (["--benchmark", "circo"], "data/benchmarks/circo/queries is not there"),
        (["--guidance", "9"], "guidance_scale 9.0 is above 4, the largest that it learned"),
    ],
)
def test_a_wrong_option_is_one_line(clone, arguments, said):
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code != 0 and said in outcome.output and not OUT.exists()
