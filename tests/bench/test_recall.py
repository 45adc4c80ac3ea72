"""bench/recall.py on a CPU, where nothing is quick: its three steps in turn, and the recall of what was drawn."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bench import peer, recall
from tests.stages.conftest import workspace  # noqa: F401
from tests.stages.test_sweep import GALLERY, IDS, ready  # noqa: F401


@pytest.mark.parametrize("apart", [True, False])
def test_recall_of_every_way(ready, tmp_path, monkeypatch, apart):  # noqa: F811
    monkeypatch.setattr(peer, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(recall, "load_params", lambda: ready)
    monkeypatch.setattr(
        recall, "SAMPLED", {name: recall.SAMPLED[name] for name in ("plain fp32", "bf16, half of the steps guided")}
    )
    ready.retrieve.hypotheses = 1
    for step in ("texts", "draw", "score") if apart else ("all",):
        recall.main(step, tmp_path / "between", [0, 1], tmp_path / "recall.json")
    found = json.loads((tmp_path / "recall.json").read_text())
    assert found["queries"] == 12 and [(row["trained"], row["sampled"]) for row in found["rows"]] == [
        (kind, way) for kind in ("bf16", "fp8") for way in recall.SAMPLED
    ]
    targets = load_file(tmp_path / "between" / "targets.safetensors")
    for row in found["rows"]:
        for seed, figure in enumerate(row["seeds"]):
            scores = targets[f"{row['trained']}/{row['sampled']}/{seed}"] @ GALLERY.T  # [12, 24]
            scores[np.arange(len(IDS)), np.arange(len(IDS))] = -np.inf  # the reference
            hit = np.array([23 - query in np.argsort(-scores[query])[:10] for query in range(12)])
            assert figure == pytest.approx(100 * (hit[::3].mean() + np.delete(hit, np.s_[::3]).mean()) / 2, abs=0.006)
        assert row["recall_at_10"] == pytest.approx(np.mean(row["seeds"]), abs=0.01)
