"""`cir --help`, what it costs, and `cir info`."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.app.cli.method_names import listed
from pipeline.query import registry
from tests.sections import profile

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def info(profile: str) -> dict:
    result = CliRunner().invoke(app, ["info", "--profile", profile])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


COMMANDS = typer.main.get_command(app).commands
HEAVY = ("torch", "numpy", "pyarrow", "PIL", "transformers", "gradio", "faiss", "dvc")


def test_help_imports_nothing_heavy():
    code = f"""
import sys
from typer.testing import CliRunner
from pipeline.app.cli.main import app
result = CliRunner().invoke(app, ["--help"])
assert result.exit_code == 0 and "search" in result.output
print([name for name in {HEAVY} if name in sys.modules])
"""
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"cir {version('composed-image-retrieval')}\n")


WRONG = {
    "image": ["search", "--image", "nowhere", "--text", "red", "--gallery", "photos"],
    "gallery": ["search", "--image", "nowhere", "--text", "red", "--gallery", "nowhere"],
    "demo's gallery": ["demo", "--gallery", "nowhere"],
    "folder": ["index", "nowhere"],
    "method": ["search", "--image", "red ball", "--text", "red", "--gallery", "photos", "--method", "magic"],
    "method to index for": ["index", "photos", "--method", "magic"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_name_is_told_before_torch_is_loaded(in_project, words):
    code = f"""
import sys
from typer.testing import CliRunner
from pipeline.app.cli.main import app
result = CliRunner().invoke(app, {words})
assert result.exit_code == 1 and result.stderr.startswith("error: "), result.output
assert "Error: " not in result.stderr, result.stderr
print([name for name in ("torch", "transformers", "faiss", "gradio") if name in sys.modules])
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == "[]"


def test_help_lists_the_registrys_methods():
    assert set(listed().split(", ")) == set(registry.methods(profile("offline")))


def test_help_names_every_command():
    listed = CliRunner().invoke(app, ["--help"]).output
    assert set(COMMANDS) == {
        "index",
        "search",
        "demo",
        "serve",
        "export",
        "score",
        "submit",
        "info",
        "rejected",
        "verify",
        "models",
        "check",
        "libraries",
    }
    assert all(f" {name} " in listed for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_every_option_is_explained(name):
    command = COMMANDS[name]
    assert command.help.strip().split("\n")[0].endswith(".")
    assert not [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]


def test_the_papers_counts():
    models = info("paper")
    assert models["prior"]["parameters"] == 953_866_640
    assert models["control_adapter"]["trainable"] == 317_847_168
    assert models["embedder"]["name"] == "Qwen/Qwen2.5-VL-72B-Instruct"
    assert len(models["embedder"]["revision"]) == len(models["text_encoder"]["revision"]) == 40
    assert (models["dual_encoder"]["image_width"], models["dual_encoder"]["dim"]) == (1024, 768)
    assert models["diffcomp"]["diffcomp"]["trainable"] < models["diffcomp"]["diffcomp"]["parameters"]


def test_the_embedded_default():
    models = info("offline")
    assert models["prior"]["dim"] == models["embedder"]["dim"]
    assert models["prior"]["parameters"] > models["control_adapter"]["trainable"] > 0
    assert list(models["diffcomp"]) == ["diffcomp_row1", "diffcomp", "diffcomp_relative"]


def test_an_unknown_profile_is_one_line():
    result = CliRunner().invoke(app, ["info", "--profile", "huge"])
    assert result.exit_code == 1
    assert result.stderr.strip() == "error: profile: 'huge' is not one of lab, offline, paper, smoke"


def test_debug_shows_the_traceback(monkeypatch):
    def fail(*arguments):
        raise KeyError("a mistake")

    monkeypatch.setattr("pipeline.app.cli.main.load_profile", fail)
    monkeypatch.setenv("CIR_DEBUG", "")  # what the option sets is undone after the test
    plain = CliRunner().invoke(app, ["info"])
    assert plain.exit_code == 1 and plain.stderr.startswith("error: KeyError: 'a mistake' (")
    assert plain.stderr.endswith("`cir --debug` in place of `cir` shows the traceback)\n")
    assert isinstance(CliRunner().invoke(app, ["--debug", "info"]).exception, KeyError)


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999", "x"])
def test_a_port_is_a_range(port):
    result = CliRunner().invoke(app, ["demo", "--port", port])
    assert result.exit_code == 2 and "'--port'" in result.stderr and "Traceback" not in result.stderr
