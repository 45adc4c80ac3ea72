"""Recall before and after, from probabilities that are asked for once."""

from __future__ import annotations

import dataclasses
import io
import json

import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench import verified
from pipeline.artifacts import schemas, write_table
from pipeline.config import RerankParams
from pipeline.retrieval.rankings import Ranking, write_rankings
from tests.rerank.test_order import Brightness
from tests.sections import plain_params, section


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A benchmark whose targets are the brightest images and stand second, and what verifies them."""
    monkeypatch.chdir(tmp_path)
    images = []
    for value in (0, 100, 200, 250):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
        images.append({"image_id": f"i{value}", "bytes": buffer.getvalue(), "width": 8, "height": 8})
    row = {
        "reference_id": "i0",
        "modifications": ["brighter"],
        "target_ids": ["i250"],
        "subset_ids": [],
        "category": "a",
    }
    folder, names = tmp_path / "data/benchmarks/emoji_cir", ("q0", "q1")
    write_table(folder / "images", pa.Table.from_pylist(images, schema=schemas.IMAGES), {})
    queries = pa.Table.from_pylist([row | {"query_id": name, "shared_concept": ""} for name in names], schemas.QUERIES)
    write_table(folder / "queries", queries, {})
    ranked = [Ranking(name, ("i100", "i250", "i200"), (0.9, 0.8, 0.7)) for name in names]
    write_rankings("data/retrieved/emoji_cir/rankings/slerp", "slerp", ranked, {"space": "clip"})
    params = dataclasses.replace(plain_params(), rerank=section(RerankParams, weight=1.0))
    monkeypatch.setattr(verified, "load_params", lambda: params)
    monkeypatch.setattr(verified, "check_trained", lambda section: None)
    monkeypatch.setattr(verified, "open_mllm", lambda *args: found)
    found = Brightness()
    return found


def run(*options):
    return CliRunner().invoke(verified.app, ["--method", "slerp", "--out", "found.json", *options])


def test_recalls_and_their_difference(model, tmp_path):
    assert run("--top", "2", "--benchmarks", "emoji_cir").exit_code == 0
    first = json.loads((tmp_path / "found.json").read_text())
    found = first["benchmarks"]["emoji_cir"]
    assert (found["queries"], found["before"]["R@1"], found["after"]["R@1"]) == (2, 0.0, 100.0)
    assert found["change"]["R@1"] == {"difference": 100.0, "low": 100.0, "high": 100.0}
    asked = len(model.asked)
    assert run("--top", "2", "--benchmarks", "emoji_cir").exit_code == 0 and len(model.asked) == asked
    assert json.loads((tmp_path / "found.json").read_text()) == first
    assert run("--top", "3", "--benchmarks", "emoji_cir").exit_code == 0 and len(model.asked) > asked


def test_an_unknown_benchmark_is_named(model, capsys):
    assert run("--benchmarks", "emoji").exit_code != 0
    assert not model.asked
