"""`cir --help` and `cir info`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.app.cli.main import app

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def info(profile: str) -> dict:
    result = CliRunner().invoke(app, ["info", "--profile", profile])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_papers_counts():
    models = info("paper")
    assert models["prior"]["parameters"] == 953_866_640
    assert models["control_adapter"]["trainable"] == 317_847_168
    assert models["encoder"]["name"] == "Qwen/Qwen2.5-VL-72B-Instruct"
    assert len(models["encoder"]["revision"]) == len(models["text_encoder"]["revision"]) == 40
    assert (models["dual_encoder"]["image_width"], models["dual_encoder"]["dim"]) == (1024, 768)
    assert models["diffcomp"]["diffcomp"]["trainable"] < models["diffcomp"]["diffcomp"]["parameters"]


def test_the_embedded_default():
    models = info("offline")
    assert models["prior"]["dim"] == models["encoder"]["dim"]
    assert models["prior"]["parameters"] > models["control_adapter"]["trainable"] > 0
    assert list(models["diffcomp"]) == ["diffcomp_row1", "diffcomp_caption", "diffcomp"]


def test_an_unknown_profile_is_one_line():
    result = CliRunner().invoke(app, ["info", "--profile", "huge"])
    assert result.exit_code == 1
    assert result.stderr.strip() == "error: profile: 'huge' is not one of offline, paper, smoke"
