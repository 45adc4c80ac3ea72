"""`cir models fetch`, where no hub can be reached: one line, and what is on this machine works."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from tests.encoders.dual.random_models import save_siglip


@pytest.fixture(autouse=True)
def offline_again(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the command sets it; this puts it back


def test_an_encoder_that_is_there_is_described(tmp_path):
    run = CliRunner().invoke(app, ["models", "fetch", str(save_siglip(tmp_path))])
    assert run.exit_code == 0, run.output
    assert "images of 28 px, vectors of 32" in run.output


@pytest.mark.parametrize("name", ["ViT-B-32", "nonsense"])
def test_a_wrong_name_is_one_line(name):
    run = CliRunner().invoke(app, ["models", "fetch", name])
    assert run.exit_code == 1 and run.stderr.startswith("error: encoder") and run.stderr.count("\n") == 1
