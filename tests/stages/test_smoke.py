"""The whole graph on the committed pictures, run by DVC in a copy of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = (
    ".dvc/config", ".dvcignore", "dvc.yaml", "params.yaml", "pyproject.toml", "conf", "models/backbones", "pipeline", "stages", "tests/fixtures",
)


def run(project: Path, *command: str) -> str:
    """One command inside the copy; its output is in the failure."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, cwd=project, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy in a Git repository of its own, after `dvc exp run -S profile=smoke`."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".gitignore"))
        else:
            shutil.copy(source, target)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-qm", "copy"]):
        run(folder, "git", *command)
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@example.com")
    run(folder, "dvc", "exp", "run", "-S", "profile=smoke")
    return folder


def test_the_smoke_run_reports_every_method(project):
    metrics = json.loads((project / "reports/metrics.json").read_text())
    methods = {
        "image_only", "text_only", "image_text", "slerp", "fused_only", "stage1_only", "fusion_diff",
        "diffcomp_row1", "diffcomp_caption", "diffcomp",
    }
    assert methods <= set(metrics["emoji_cir"])
    for method in methods:
        mean = metrics["emoji_cir"][method]["mean"]
        assert 0.0 <= mean["R@1"] <= mean["R@10"] <= mean["R@50"] <= 100.0
    page = (project / "reports/index.html").read_text()
    assert "data:image/png;base64," in page and str(project) not in page


def test_a_second_run_has_nothing_to_do(project):
    assert "Data and pipelines are up to date." in run(project, "dvc", "status")


def test_one_parameter_reruns_just_what_it_must(project):
    output = run(project, "dvc", "exp", "run", "-S", "profile=smoke", "-S", "prior.lr=2e-5")
    rerun = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    assert rerun == ["train_prior", "train_control_adapter", "retrieve", "report"]
