"""The command line, and how errors read."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.artifacts import ArtifactError
from pipeline.config import ParameterError
from pipeline.errors import clear_errors, run_stage
from pipeline.fusion_diff import PriorSizes
from pipeline.sources.emoji import SourceError
from pipeline.training import TrainingError

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


@pytest.mark.parametrize("kind", [ParameterError, ArtifactError, SourceError, TrainingError])
def test_the_projects_errors_are_one_line(kind, capsys):
    def main():
        raise kind("what is wrong\nand where")

    with pytest.raises(SystemExit) as ended:
        run_stage(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: what is wrong and where\n"


def test_a_value_error_about_the_input_is_one_line(capsys):
    with pytest.raises(SystemExit), clear_errors():
        PriorSizes(8, 1, 4, 2, 12, 5, 2, 4, 16, 8, 4)
    assert capsys.readouterr().err == "error: prior: width 12 is not a multiple of heads 5\n"


def test_a_mistake_in_the_code_keeps_its_traceback():
    with pytest.raises(KeyError), clear_errors():
        {}["missing"]
    with pytest.raises(ValueError, match="invalid literal"), clear_errors():
        int("x")
