"""Messages that name the way out, and that the way out works."""

import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.app.search.indexing import index_folder
from pipeline.app.search.library import Library
from pipeline.app.search.library_names import DATABASE
from pipeline.app.search.remedies import TRAINED_BY, index_command, training_command
from pipeline.config import load_params, load_profile
from pipeline.query import registry
from pipeline.query.spaces import ImageEmbedder

ROOT = Path(__file__).parents[3]


def cir(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def search(gallery: object, image: object, method: str = "slerp"):
    return cir("search", "--gallery", gallery, "--image", image, "--text", "a moon", "--method", method, "--json")


def remedy(result) -> list[str]:
    """The words of the command between backticks in a one-line error."""
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return shlex.split(result.stderr.split("`")[1])


@pytest.fixture
def folder(in_project, tmp_path) -> Path:
    """Three images, indexed for slerp. The name has a space."""
    photos = tmp_path / "my photos"
    photos.mkdir()
    for number, path in enumerate(sorted(Path("photos").rglob("t*.png"))[:3]):
        shutil.copy(path, photos / f"{number}.png")
    index_folder(photos, load_params(), methods=["slerp"])
    return photos


@pytest.fixture
def embeds_nothing(monkeypatch):
    def forbid():
        def fail(self, inputs):
            raise AssertionError("embedded again")

        monkeypatch.setattr(ImageEmbedder, "embed", fail)

    return forbid


@pytest.fixture
def copied(project, photo, tmp_path, monkeypatch) -> str:
    """A photo, in a project with models of its own that a test may remove."""
    monkeypatch.chdir(tmp_path)
    for part in ("photos", "params.yaml", "data"):
        Path(part).symlink_to(project / part)
    shutil.copytree(project / "models", "models", symlinks=True)
    return photo


@pytest.mark.parametrize("out", [None, "elsewhere"])
def test_a_library_indexed_for_another_method(folder, tmp_path, out):
    gallery = folder
    if out:
        gallery = tmp_path / out
        index_folder(folder, load_params(), gallery, ["slerp"])
    found = search(gallery, folder / "0.png", "diffcomp")
    assert "indexed for clip, not for diffcomp" in found.stderr
    command = remedy(found)
    assert command[:2] == ["cir", "index"] and command[-2:] == ["--method", "diffcomp"]
    assert cir(*command[1:]).exit_code == 0
    assert search(gallery, folder / "0.png", "diffcomp").exit_code == 0
    assert search(gallery, folder / "0.png", "slerp").exit_code == 0


def test_an_index_of_another_model(folder):
    index_folder(folder, load_params(), methods=["slerp", "diffcomp"])
    library = Library.open(folder)
    library.commit(spaces={"diffcomp": library.spaces["clip"]})
    found = search(folder, folder / "0.png", "diffcomp")
    assert "its images were embedded with diffcomp = None" in found.stderr
    assert cir(*remedy(found)[1:]).exit_code == 0
    assert search(folder, folder / "0.png", "diffcomp").exit_code == 0


def test_images_and_library_moved_together(folder, tmp_path):
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert search(moved, moved / "0.png").exit_code == 0


@pytest.mark.parametrize("moved", ["the images", "the library"])
def test_one_of_images_and_library_moved(folder, tmp_path, embeds_nothing, moved):
    library = tmp_path / "library"
    index_folder(folder, load_params(), library, ["slerp"])
    if moved == "the images":
        folder = folder.rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "deep").mkdir()
        library = library.rename(tmp_path / "deep/library")
    found = search(library, folder / "0.png")
    assert "none of its images is in" in found.stderr
    command = [folder if word == "FOLDER" else word for word in remedy(found)]
    embeds_nothing()
    assert cir(*command[1:], "--method", "slerp").exit_code == 0
    assert search(library, folder / "0.png").exit_code == 0


def test_an_image_that_is_gone(folder):
    (folder / "1.png").unlink()
    assert remedy(search(folder, "1.png")) == ["cir", "index", str(folder)]


@pytest.mark.parametrize("content", [b"{}", b"words" * 5000, b"SQLite format 3\0" + b"x" * 5000])
def test_a_damaged_library(folder, content):
    (folder / ".cir" / DATABASE).write_bytes(content)
    for command in (lambda: search(folder, folder / "0.png"), lambda: cir("index", folder)):
        found = command()
        assert found.exit_code == 1 and DATABASE in found.stderr and "shows the traceback" not in found.stderr


def test_a_library_of_a_later_format(folder):
    Library.open(folder).keep_setting("format", 99)
    assert "of format 99, this program reads 1" in search(folder, folder / "0.png").stderr


def test_an_index_of_a_benchmark_that_is_missing(benchmark_gallery, monkeypatch):
    monkeypatch.setattr(type(benchmark_gallery), "spaces", ["clip"])
    found = search("", benchmark_gallery.ids[0], "diffcomp")
    assert remedy(found) == ["dvc", "repro", "build_index"]


@pytest.mark.parametrize(
    ("missing", "method", "stages"),
    [
        (["prior"], "fusion_diff", ["train_prior"]),
        (["control"], "fusion_diff", ["train_control_adapter"]),
        (["prior", "control"], "fusion_diff", ["train_prior", "train_control_adapter"]),
        (["diffcomp"], "diffcomp", ["train_diffcomp"]),
    ],
)
def test_a_method_that_is_not_trained_yet(copied, missing, method, stages):
    for name in missing:
        shutil.rmtree(f"models/{name}")
    found = search("photos", copied, method)
    assert f"{method} is not trained yet (models/{missing[0]}" in found.stderr
    assert remedy(found) == ["dvc", "repro", *stages]


def test_indexing_for_a_method_that_is_not_trained_yet(folder, monkeypatch):
    monkeypatch.setattr("pipeline.query.models.DIFFCOMP", Path("models/diffcomp/nowhere"))
    found = cir("index", folder, "--method", "diffcomp")
    assert "models/diffcomp/nowhere/diffcomp is not trained yet" in found.stderr
    assert remedy(found) == ["dvc", "repro", "train_diffcomp"]


def test_every_model_of_a_method_has_a_stage_that_trains_it():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(TRAINED_BY.values()) <= set(stages)
    for method in registry.methods(load_profile("offline", ROOT / "conf")).values():
        for folder in method.weights:
            assert len(shlex.split(training_command([folder]))) == 3, folder


COMMANDS = [
    ("search", "--image", "a.png", "--text", "x"),
    ("search", "--image", "a.png", "--text", "x", "--gallery", "photos"),
    ("demo",),
    ("index", "."),
    ("rejected",),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_outside_the_project(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    found = cir(*words)
    assert "this is not the project's folder" in found.stderr
    assert remedy(found) == ["cir", "--project", str(ROOT), "..."]


@pytest.mark.parametrize(("words", "option"), [(("verify",), "--root"), (("info",), "--conf")])
def test_other_commands_outside_the_project(tmp_path, monkeypatch, words, option):
    monkeypatch.chdir(tmp_path)
    found = cir(*words)
    assert found.exit_code == 1 and option in found.stderr and "project's folder" in found.stderr


def test_parameters_of_another_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = cir("search", "--image", "a.png", "--text", "x", "--params", ROOT / "params.yaml")
    assert "its paths are relative to its folder" in found.stderr
    assert remedy(found) == ["cir", "--project", str(ROOT), "..."]


def test_a_folder_that_is_not_indexed(in_project, tmp_path, photo):
    (tmp_path / "new ones").mkdir()
    assert remedy(search(tmp_path / "new ones", photo)) == ["cir", "index", str(tmp_path / "new ones")]


def test_the_command_names_the_library_only_where_it_is_elsewhere():
    assert index_command(Path("a b"), Path("a b/.cir")) == "cir index 'a b'"
    assert index_command(Path("a"), Path("b"), ["slerp"]) == "cir index a --out b --method slerp"
