"""`cir` from other folders than the project's."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.app.given_paths import enter_project
from pipeline.config import ParameterError


def cir(*words: str, here: Path, monkeypatch):
    monkeypatch.chdir(here)
    result = CliRunner().invoke(app, [*words])
    monkeypatch.chdir(here)
    return result


@pytest.fixture
def with_graph(in_project) -> Path:
    """The project as a checkout: with its graph."""
    Path("dvc.yaml").touch()
    yield in_project
    (in_project / "dvc.yaml").unlink()


SEARCH = ("search", "--text", "with a hat", "--method", "slerp", "--json", "--top", "2")


def test_a_folder_outside_and_one_inside(with_graph, tmp_path, monkeypatch):
    image = next(Path("photos").rglob("*.png")).resolve()
    shutil.copy(image, tmp_path / "own.png")
    words = ("--project", os.path.relpath(with_graph, tmp_path), *SEARCH)
    found = cir(
        *words, "--image", "own.png", "--gallery", "photos", "--html", "o.html", here=tmp_path, monkeypatch=monkeypatch
    )
    assert found.exit_code == 0, found.output
    assert (tmp_path / "o.html").is_file()
    inside = with_graph / "photos"
    again = cir(
        *SEARCH, "--image", image.relative_to(inside).as_posix(), "--gallery", ".", here=inside, monkeypatch=monkeypatch
    )
    assert again.exit_code == 0, again.output
    hits = [json.loads(result.stdout.splitlines()[0])["hits"] for result in (found, again)]
    assert len(hits[0]) == len(hits[1]) == 2
    assert image.name not in [Path(hit["id"]).name for hit in hits[1]]  # its own file, by a path from there


def test_folders_that_are_no_project(tmp_path, monkeypatch):
    result = cir("--project", str(tmp_path), *SEARCH, "--image", "x", here=tmp_path, monkeypatch=monkeypatch)
    assert result.exit_code == 1 and result.stderr.startswith(f"error: {tmp_path}: not the project's folder")
    result = cir(*SEARCH, "--image", "x", here=tmp_path, monkeypatch=monkeypatch)
    assert result.exit_code == 1 and "cir --project " in result.stderr
    with pytest.raises(ParameterError):
        enter_project(Path("nowhere"))
