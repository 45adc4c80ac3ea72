"""Raw inputs in the workspaces that DVC makes for queued and temporary runs."""

from pathlib import Path

import pytest

from pipeline.sources.files import linked_folders
from pipeline.sources.raw import bring_in, project_of, real_folders


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A workspace as DVC makes it; the project has raw inputs, one of them behind a link."""
    raw = tmp_path / "project/data/raw"
    (raw / "folder/deep").mkdir(parents=True)
    (raw / "folder/deep/a.jpg").write_text("an image")
    (raw / "package.tgz").write_text("a package")
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/0.tar").write_text("an archive")
    (raw / "cc3m").symlink_to(tmp_path / "disk")
    place = tmp_path / "project/.dvc/tmp/exps/standalone/tmpx1"
    (place / "data/raw").mkdir(parents=True)
    (place / "data/raw/.gitkeep").touch()
    monkeypatch.chdir(place)
    return place


def test_every_file_of_the_project_is_there(workspace, tmp_path):
    (workspace / "data/raw/folder/deep").mkdir(parents=True)
    (workspace / "data/raw/folder/deep/a.jpg").write_text("copied by DVC's --copy-paths")
    bring_in(["data/raw", "data/raw/nothing", str(tmp_path / "disk")])
    read = {str(path.relative_to(workspace)): path.read_text() for path in workspace.rglob("*") if path.is_file()}
    assert read == {
        "data/raw/.gitkeep": "",
        "data/raw/folder/deep/a.jpg": "copied by DVC's --copy-paths",
        "data/raw/package.tgz": "a package",
        "data/raw/cc3m/0.tar": "an archive",
    }
    bring_in(["data/raw"])
    assert real_folders(Path("data/raw/cc3m")) == [workspace / "data/raw/cc3m", tmp_path / "disk"]


def test_in_the_project_itself_nothing_is_linked(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "project")
    before = sorted(tmp_path.rglob("*"))
    bring_in(["data/raw"])
    assert sorted(tmp_path.rglob("*")) == before
    assert real_folders(Path("data/raw/folder")) == [tmp_path / "project/data/raw/folder"]
    assert linked_folders(Path("data/raw")) == [Path("data/raw/cc3m")] and linked_folders(Path("none")) == []


@pytest.mark.parametrize(
    ("workspace", "project"),
    [
        ("/a/b/.dvc/tmp/exps/tmp123", "/a/b"),
        ("/a/.dvc/tmp/exps/standalone/tmp1/sub", "/a"),
        ("/a/b", None),
        ("/a/.dvc/tmp/exps", None),
        ("/", None),
    ],
)
def test_the_project_of_a_workspace(workspace, project):
    assert project_of(Path(workspace)) == (project and Path(project))
