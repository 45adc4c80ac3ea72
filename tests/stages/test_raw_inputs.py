"""DVC sees the raw inputs: what changes below data/raw runs `prepare` again, and other workspaces find it."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.rehearsal import benchmarks as miniature
from tests.stages.test_own_pairs import write_own_pairs
from tests.stages.test_smoke import copy_project, run

CHANGED = "modified:           data/raw"
OVERRIDES = ["profile=smoke", "data.sources=web", "data.web.pairs=[folder]", "data.web.edits=[]"]
OVERRIDES += ["data.benchmarks=[cirr]", "data.cirr.splits=[val]"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with own pairs and CIRR, after `prepare`."""
    folder = tmp_path_factory.mktemp("raw")
    copy_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_own_pairs()
        miniature.write_all(Path("data/raw"))
    run(folder, "dvc", "exp", "run", *settings(), "prepare")
    return folder


def settings(*more: str) -> list[str]:
    return [word for one in (*OVERRIDES, *more) for word in ("-S", one)]


def test_what_changes_below_data_raw_runs_prepare_again(project):
    assert "up to date" in run(project, "dvc", "status", "prepare")
    assert "Stage 'prepare' didn't change" in run(project, "dvc", "repro", "prepare")
    captions, image = project / "data/raw/folder/captions.csv", project / "data/raw/folder/0.jpg"
    captions.write_text(captions.read_text().replace("a red hat", "a very red hat"))
    assert CHANGED in run(project, "dvc", "status", "prepare")
    assert "Running stage 'prepare'" in run(project, "dvc", "repro", "prepare")
    (image.parent / "new.jpg").write_bytes(image.read_bytes())
    assert CHANGED in run(project, "dvc", "status", "prepare")
    said = run(project, "dvc", "repro", "prepare")
    assert "1 images and other files left out:" in said and "an image that no CSV names (first: folder/new.jpg)" in said
    (project / "data/raw/package-1.0.tgz").write_text("fetched by the stage")
    (project / "data/raw/folder/.DS_Store").write_text("left by a file manager")
    assert "up to date" in run(project, "dvc", "status", "prepare")


def test_a_temporary_run_finds_them_and_leaves_nothing_to_do(project):
    run(project, "dvc", "exp", "run", "--temp", "--name", "temporary", *settings("data.triplets=7"), "prepare")
    dvc = Path(sys.executable).with_name("dvc")
    subprocess.run(
        [dvc, "exp", "apply", "temporary"], cwd=project, capture_output=True
    )  # misses the later stages' outputs
    assert run(project, "git", "diff", "--stat", "params.yaml")
    assert "up to date" in run(project, "dvc", "status", "prepare")
