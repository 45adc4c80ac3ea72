"""The whole graph on the committed images, run by DVC in a copy of the project."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.config import load_profile
from pipeline.query import registry

ROOT = Path(__file__).parents[2]
COPIED = (
    ".dvc/config",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
    "pyproject.toml",
    "conf",
    "data/raw/.gitkeep",
    "models/backbones",
    "models/decoder",
    "pipeline",
    "ablations/tables.yaml",
    "reports/ablations/.gitkeep",
    "reports/peers/.gitkeep",
    "reports/seeds/.gitkeep",
    "reports/sweeps/.gitkeep",
    "stages",
    "tests/fixtures",
)


OFFLINE = """#!{python}
import runpy, sys

def refuse(event, arguments):
    asks, sends = ("socket.getaddrinfo", "socket.gethostbyname"), ("socket.connect", "socket.sendto")
    if event in asks or (event in sends and arguments[0].family != 1):  # 1: this machine's own sockets
        raise SystemExit(f"{{sys.argv}}: {{event}}{{arguments[1:]}}, though there is no network")

sys.addaudithook(refuse)
sys.argv = sys.argv[2:]
sys.path.insert(0, "")
with open({log!r}, "a") as log:
    print(sys.argv[0], file=log)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Stands for `python` in a stage's command: it runs the stage, for which there is no network."""


def run(project: Path, *command: str) -> str:
    """One command inside the copy; its output is in the failure."""
    path = os.pathsep.join([str(project / ".git/offline"), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, cwd=project, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def copy_project(folder: Path) -> None:
    """The project in a Git repository of its own, in which no stage has a network."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".gitignore"))
        else:
            shutil.copy(source, target)
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@example.com")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "copy")
    python = folder / ".git/offline/python"  # where nobody looks for a project's files
    python.parent.mkdir()
    python.write_text(OFFLINE.format(python=sys.executable, log=str(folder / ".git/offline/stages")))
    python.chmod(0o755)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project after `dvc exp run -S profile=smoke`."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    run(folder, "dvc", "exp", "run", "-S", "profile=smoke")
    return folder


@pytest.fixture(scope="module")
def swept(project) -> tuple[Path, str]:
    """The project after a sweep and the report of it, and what the sweep said."""
    shutil.copytree(ROOT / "sweeps", project / "sweeps", ignore=shutil.ignore_patterns("dvc.lock"))
    said = run(project, "dvc", "repro", "sweeps/dvc.yaml:sweep@solver_steps")
    assert "Running stage 'report'" in run(project, "dvc", "repro")
    return project, said


def test_the_smoke_run_reports_every_method(project):
    metrics = json.loads((project / "reports/metrics.json").read_text())
    methods = set(registry.methods(load_profile("smoke", project / "conf")))
    assert methods == set(metrics["emoji_cir"])
    for method in methods:
        mean = metrics["emoji_cir"][method]["mean"]
        assert 0.0 <= mean["R@1"] <= mean["R@10"] <= mean["R@50"] <= 100.0
    page = (project / "reports/index.html").read_text()
    assert "data:image/png;base64," in page and str(project) not in page


def test_the_graph_ran_without_a_network(project):
    ran = (project / ".git/offline/stages").read_text().split()
    graph = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    assert {f"stages.{name}" for name, stage in graph.items() if not stage.get("frozen")} <= set(ran)
    for attempt in (
        "socket.create_connection(('127.0.0.1', 9))",
        "urllib.request.urlopen('http://a.b')",
        "socket.gethostbyname('a.b')",
    ):
        (project / "attempt.py").write_text(f"import socket, urllib.request\n{attempt}\n")
        tried = subprocess.run(
            [project / ".git/offline/python", "-m", "attempt"], cwd=project, capture_output=True, text=True
        )
        assert tried.returncode and "though there is no network" in tried.stderr
    (project / "attempt.py").unlink()


def test_a_second_run_has_nothing_to_do(project):
    assert "Data and pipelines are up to date." in run(project, "dvc", "status")


@pytest.mark.parametrize(
    "command",
    [["stage", "list"], ["metrics", "show"], ["exp", "show", "--no-pager", "--drop", "[a-z]", "--keep", "prior.lr"]],
)
def test_what_dvc_prints_fits_a_terminal(project, command):
    lines = run(project, "dvc", *command).splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 120


def test_a_colleague_pulls_what_was_trained(project, tmp_path):
    """From the remote, a fresh checkout gets every output, and has nothing to run."""
    clone, store = tmp_path / "clone", str(tmp_path / "store")
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", "what was trained")
    run(tmp_path, "git", "clone", "-q", str(project), str(clone))
    for folder in (project, clone):
        run(folder, "dvc", "remote", "add", "--force", "--default", "store", store)
    run(project, "dvc", "push", "--run-cache")
    assert not (clone / "models/prior").exists()
    run(clone, "dvc", "pull", "--run-cache")
    assert "Data and pipelines are up to date." in run(clone, "dvc", "status")
    for name in ("prior", "control", "diffcomp/diffcomp"):
        weights = f"models/{name}/model.safetensors"
        assert (clone / weights).read_bytes() == (project / weights).read_bytes()


def test_one_parameter_reruns_just_what_it_must(project):
    output = run(project, "dvc", "exp", "run", "-S", "profile=smoke", "-S", "prior.lr=2e-5")
    rerun = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    trained = ["train_prior", "train_control_adapter", "distill_prior"]
    assert rerun == ["check_parameters", *trained, "retrieve", "rerank", "report"]


def test_a_sweep_is_one_command_and_the_report_shows_it(swept):
    project, said = swept
    assert "Running stage 'sweeps/dvc.yaml:sweep@solver_steps'" in said
    rows = list(csv.DictReader((project / "reports/sweeps/solver_steps.csv").open()))
    assert [row["solver_steps"] for row in rows if row["kind"] == "mean"] == ["2", "3"]
    assert "Solver steps N" in (project / "reports/index.html").read_text()


def test_plots_have_their_axes_named(swept):
    project, _ = swept
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", "a run")
    curves = project / "reports/plots/recall.csv"
    curves.write_text(curves.read_text().replace("slerp,1,", "slerp,1,1"))
    for command in (["show"], ["diff", "HEAD"]):
        run(project, "dvc", "plots", *command, "--out", "drawn")
        page = (project / "drawn/index.html").read_text()
        for title in ("K", "mean R@K (%)", "step", "loss", "solver steps (N)", "R@10 (%)"):
            assert f'"title": "{title}"' in page, (command, title)
        assert 'src="http' not in page and "vega-embed 6" in page  # it needs no network
        assert "<DVC_METRIC" not in page and '"method": "slerp"' in page
    assert '"rev": "HEAD"' in page and '"rev": "workspace"' in page
