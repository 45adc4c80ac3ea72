"""Scores of peers: exact search without the reference, and what a row says."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from bench.peers import BASELINES, DEVIATION, RECALLS, TRAINING, Gallery, Runs, caption_of, rows_of, train_timed
from pipeline.retrieval.queries import Query


def test_the_reference_is_no_answer_and_order_decides():
    gallery = Gallery(["a", "b", "c"], np.eye(3, dtype=np.float32))
    queries = [Query("1", "a", ("x",), ("b",)), Query("2", "c", ("x",), ("a",))]
    vectors = np.array([[0.9, 0.4, 0.1], [0.1, 0.5, 0.9]], dtype=np.float32)  # b is next for both
    found = gallery.hits(vectors, queries)
    assert found[1].tolist() == [1.0, 0.0] and found[5].tolist() == [1.0, 1.0]
    assert gallery.of(queries).tolist() == [[1, 0, 0], [0, 0, 1]]


class Told:
    """A scorer of three queries of one kind that needs no model."""

    kinds = ["all"] * 3
    params = SimpleNamespace(report=SimpleNamespace(bootstrap=10))

    def baselines(self):
        return {name: hits_of(0, 1, 0) for name in BASELINES}


def hits_of(*found):
    return {k: np.array(found, dtype=float) for k in RECALLS}


def test_rows_are_in_the_order_of_their_scores_with_the_spread_of_seeds():
    runs = {
        "searle": Runs([hits_of(0, 0, 0)]),
        "lincir": Runs([hits_of(1, 1, 1), hits_of(0, 1, 1)], [2.0, 4.0], {"two cores"}),
    }
    rows = rows_of(Told(), runs)
    assert [row["method"] for row in rows] == ["lincir", *BASELINES, "searle"]
    best = rows[0]
    assert best["R@10"]["value"] == 83.33 and best["seeds"] == [100.0, 66.67]
    assert best["R@10 over slerp"]["value"] == 50.0, "83.3 against 33.3"
    assert best[DEVIATION] == {"value": 23.57} and best[TRAINING] == {"value": 3.0}
    assert rows[-1][DEVIATION] is None, "one run has no spread"


@pytest.mark.parametrize(("runs", "kept"), [(1, "seed 0,1"), (2, "2 seeds")])
def test_the_caption_says_how_often_and_on_what_peers_were_trained(runs, kept):
    found = {"lincir": Runs([hits_of(1)] * runs, [1.0], {"one GPU"}), "ldre": Runs([hits_of(1)])}
    caption = caption_of("emoji_cir", "0,1", found)
    assert f"and {kept}, in percent" in caption and "Trained on one GPU. " in caption


def test_a_training_is_timed_once(tmp_path, monkeypatch):
    done = iter([True, False])
    monkeypatch.setattr("bench.peers.train_peer", lambda folder, corpus: next(done))
    monkeypatch.setattr("bench.peers.machine", lambda params: "two cores")
    for _ in range(2):
        train_timed(tmp_path / "lincir", SimpleNamespace(params=None))
        note = json.loads((tmp_path / "lincir.json").read_text())
        assert note["device"] == "two cores"
        (tmp_path / "lincir.json").write_text(json.dumps(note | {"seconds": 7.0}))
    assert json.loads((tmp_path / "lincir.json").read_text())["seconds"] == 7.0
