"""A sweep samples as the retrieve stage does, and keeps what still holds."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.artifacts import schemas, write_table
from pipeline.config import ParameterError
from pipeline.experiments import sweep
from pipeline.experiments.sweep import SweepPaths, run_sweep
from pipeline.fusion_diff import Sampler, SamplerSettings, TextConditions
from pipeline.fusion_diff.checkpoints import load_control, load_prior
from pipeline.report.sweeps import read_sweeps
from pipeline.retrieval import build_index
from stages import train_control_adapter, train_prior
from tests.query.conftest import FakeTextEncoder
from tests.stages.conftest import COLOURS, DIM, THINGS, unit, write_vectors

IDS = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
GALLERY = unit(24, 5)
NAMES = [f"image-{number:02d}" for number in range(24)]
OUT = Path("reports/sweeps")


@pytest.fixture
def ready(workspace, monkeypatch):
    """Trained models, twelve queries of two kinds, and a gallery of 24."""
    monkeypatch.setattr(sweep, "open_text_encoder", lambda *args: FakeTextEncoder())
    train_prior.main()
    train_control_adapter.main()
    folder, rows = Path("data/retrieved/val"), []
    for number, name in enumerate(IDS):
        rows.append(
            {
                "query_id": name,
                "reference_id": NAMES[number],
                "modifications": ["with a hat"],
                "target_ids": [NAMES[23 - number]],
                "subset_ids": [],
                "category": "tone" if number % 3 else "hair",
                "shared_concept": "",
            }
        )
    write_table("data/benchmarks/val/queries", pa.Table.from_pylist(rows, schema=schemas.QUERIES), {})
    described = [{"query_id": name, "descriptions": [f"a {name}"]} for name in IDS]
    write_table(folder / "descriptions", pa.Table.from_pylist(described, schema=schemas.DESCRIPTIONS), {})
    write_vectors(folder / "fused_only", IDS, 3, {})
    write_vectors(folder / "fused_description", IDS, 4, {})
    write_vectors("data/gallery", NAMES, 5, {})
    build_index("data/gallery", "data/index/val/fused", workspace.index)
    workspace.sweep.benchmark, workspace.report.bootstrap = "val", 20
    workspace.sweep.guidance_scale, workspace.sweep.solver_steps = [0.0, 1.5], [2, 3]
    return workspace


def rows_of(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((OUT / f"{name}.csv").open()))


def test_a_sweep_scores_what_the_sampler_draws(ready):
    run_sweep("guidance_scale", ready, SweepPaths.of("val"), OUT)
    rows = rows_of("guidance_scale")
    assert [(row["guidance_scale"], row["kind"]) for row in rows] == [
        (value, kind) for value in ("0", "1.5") for kind in ("mean", "hair", "tone")
    ]
    prior, diffusion = load_prior("models/prior")
    sampler = Sampler(
        prior, load_control("models/control", prior, "models/prior"), diffusion, SamplerSettings(2, guidance_scale=1.5)
    )
    text = TextConditions.from_list(FakeTextEncoder().encode([f"a {name}" for name in IDS]))
    anchor = unit(12, 4)
    drawn = sampler.sample(
        IDS, text.batch(torch.arange(12)), torch.from_numpy(anchor), hypotheses=2, seed=0
    ).numpy()  # steered by the fused description, and drawn towards it
    assert (ready.control.signal, ready.retrieve.anchor) == ("fused_description", 0.5)
    drawn = (drawn + anchor[:, None]) / np.linalg.norm(drawn + anchor[:, None], axis=-1, keepdims=True)
    scores = drawn.mean(axis=1) @ GALLERY.T  # [12, 24]
    scores[np.arange(12), np.arange(12)] = -np.inf  # the reference
    hit = [23 - query in np.argsort(-scores[query])[:10] for query in range(12)]
    kinds = {"hair": hit[::3], "tone": [one for query, one in enumerate(hit) if query % 3]}
    expected = {kind: 100 * np.mean(found) for kind, found in kinds.items()}
    for row in rows[3:]:
        mean = sum(expected.values()) / 2
        assert float(row["recall"]) == pytest.approx(expected.get(row["kind"], mean), abs=0.006)
        assert float(row["low"]) <= float(row["recall"]) <= float(row["high"])


def test_rows_stay_where_all_else_is_as_it_was(ready, monkeypatch):
    scored, score = [], sweep.SweepInputs.score

    def counted(setting, retrieve):
        if len(scored) == 1:
            raise KeyboardInterrupt  # cut off at the second value
        scored.append(retrieve.solver_steps)
        return score(setting, retrieve)

    monkeypatch.setattr(sweep.SweepInputs, "score", counted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep("solver_steps", ready, SweepPaths.of("val"), OUT)
    assert {row["solver_steps"] for row in rows_of("solver_steps")} == {"2"}
    monkeypatch.setattr(
        sweep.SweepInputs,
        "score",
        lambda setting, retrieve: scored.append(retrieve.solver_steps) or score(setting, retrieve),
    )
    run_sweep("solver_steps", ready, SweepPaths.of("val"), OUT)
    assert scored == [2, 3]
    once = (OUT / "solver_steps.csv").read_bytes()
    ready.retrieve.solver_steps = 7  # what is swept, and what changes no row
    ready.retrieve.batch_size = 5
    run_sweep("solver_steps", ready, SweepPaths.of("val"), OUT)
    assert scored == [2, 3] and (OUT / "solver_steps.csv").read_bytes() == once
    ready.retrieve.guidance_scale = 0.5
    run_sweep("solver_steps", ready, SweepPaths.of("val"), OUT)
    assert scored == [2, 3, 2, 3]


def test_the_report_reads_what_a_sweep_writes(ready):
    run_sweep("guidance_scale", ready, SweepPaths.of("val"), OUT)
    [read] = read_sweeps(OUT)
    assert (read.name, read.benchmark, sorted(read.points)) == ("guidance_scale", "val", ["hair", "mean", "tone"])
    assert [point[0] for point in read.points["mean"]] == [0.0, 1.5]
    assert sorted(read.weights) == ["control", "prior"] and all(len(value) == 64 for value in read.weights.values())


def test_what_cannot_be_swept_is_named(ready):
    with pytest.raises(ParameterError, match="'top_k' is not one of guidance_scale, control_scale, solver_steps"):
        run_sweep("top_k", ready, SweepPaths.of("val"), OUT)
    with pytest.raises(ParameterError, match="sweep.benchmark: .*nowhere"):
        SweepPaths.of("nowhere")
    assert len(NAMES) == len(GALLERY) and GALLERY.shape[1] == DIM and not OUT.exists()
