"""`cir index` with a name, additions, removals and metadata; `cir search --where`; `cir libraries`."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pipeline.app.search.library import Library
from tests.app.cli.test_commands import assert_one_line, cir, search


@pytest.fixture(scope="module")
def prepared(project, tmp_path_factory) -> Path:
    """Six images with metadata, in a library with the name `trip`."""
    place = tmp_path_factory.mktemp("prepared")
    photos = place / "photos"
    (photos / "more").mkdir(parents=True)
    for number, path in enumerate(sorted((project / "photos").rglob("t*.png"))[:6]):
        shutil.copy(path, photos / ("more" if number > 3 else "") / f"{number}.png")
    rows = ["file_name,year,author,kept", "0.png,2020,Ann,true", "1.png,2021,Bo,false", "more/4.png,1999,,true"]
    (photos / "metadata.csv").write_text("\n".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("CIR_HOME", str(place / "home"))
        said = run("index", photos, "--name", "trip", "--method", "slerp")
    assert "6 images in clip (6 added, 0 updated, 0 removed)" in said
    return place


@pytest.fixture
def folder(in_project, prepared, tmp_path, monkeypatch) -> Path:
    """A copy of the prepared folder and of its library: they may be moved together."""
    monkeypatch.setenv("CIR_HOME", str(tmp_path / "home"))
    for name in ("home", "photos"):
        shutil.copytree(prepared / name, tmp_path / name)
    return tmp_path / "photos"


def run(*words: object) -> str:
    """A command that must succeed."""
    result = cir(*words)
    assert result.exit_code == 0, result.output
    return result.output


def found(folder: Path, where: str = "", gallery: object = "trip") -> list[str]:
    answer = search(folder / "0.png", "red", "--method", "slerp", "--json", "--where", where, gallery=gallery)
    return sorted(hit["id"] for hit in json.loads(answer.stdout.splitlines()[0])["hits"])


def test_a_search_by_metadata(folder):
    assert found(folder) == ["1.png", "2.png", "3.png", "more/4.png", "more/5.png"]
    assert found(folder, "year >= 2000") == ["1.png"]
    assert found(folder, 'author == "Bo" or path like "more/%"') == ["1.png", "more/4.png", "more/5.png"]
    assert found(folder, "not kept == true") == ["1.png"]
    assert found(folder, "year in [1, 2]") == []


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("colour == 1", "there is no field 'colour'; there are: author, date, kept, path, size, year"),
        ("year == 'x'", "year is a number, 'x' is not"),
        ("year >=", "it ends at character 8, where a value"),
        ("year = 1; drop table images", "';' at character 9 cannot be read"),
        ("(" * 500 + "year = 1" + ")" * 500, "nested deeper than 40"),
        ("x" * 3000, "3,000 characters"),
    ],
)
def test_each_wrong_filter_is_one_line(folder, where, reason):
    words = ("search", "--image", folder / "0.png", "--text", "red", "--gallery", "trip", "--where", where)
    assert_one_line(cir(*words), reason)


def test_a_benchmark_has_no_fields(benchmark_gallery):
    words = ("search", "--image", benchmark_gallery.ids[0], "--text", "red", "--where", "year > 1")
    assert_one_line(cir(*words), "have no metadata; `cir index FOLDER` gives some")


def test_some_images_come_and_go(folder):
    Image.new("RGB", (40, 40), "pink").save(folder / "new.png")
    Image.new("RGB", (40, 40), "red").save(folder / "not asked for.png")
    (folder / "metadata.csv").write_text("file_name,year\nnew.png,2024\n")
    assert "7 images in clip (1 added, 0 updated, 0 removed)" in run(
        "index", "--name", "trip", "--add", folder / "new.png"
    )
    assert found(folder, "year == 2024") == ["new.png"]
    shutil.copy(folder / "1.png", folder / "new.png")
    said = run("index", folder, "--name", "trip", "--add", folder / "new.png", "--remove", "more", "--remove", "2.png")
    assert "(0 added, 1 updated, 0 removed)" in said and "4 images in clip (3 removed)" in said
    assert found(folder) == ["1.png", "3.png", "new.png"] and (folder / "more/4.png").exists()
    run("index", folder, "--name", "trip", "--remove", folder / "3.png")
    assert "(5 added, 0 updated, 0 removed)" in run("index", "--name", "trip", "--method", "slerp")


def test_what_is_added_has_the_name_that_a_whole_index_gives_it(folder):
    (folder / "to more").symlink_to("more")
    (folder / "circle").symlink_to(".")
    (folder / "late").mkdir()
    (folder / "late/0.png").symlink_to("../0.png")
    (folder / "late/more").symlink_to("../more")
    said = run("index", "--name", "trip", "--add", folder / "late", "--add", folder / "to more")
    assert "(1 added, 0 updated, 0 removed)" in said and "late/more" in said
    assert "(0 added, 0 updated, 0 removed)" in run("index", "--name", "trip", "--add", folder / "circle")
    assert "(0 added, 0 updated, 0 removed)" in run("index", "--name", "trip", "--method", "slerp")


def test_a_field_may_become_another_kind_when_all_images_have_it(folder):
    def index() -> str:
        return run("index", folder, "--name", "trip", "--method", "slerp")

    (folder / "metadata.csv").write_text("file_name,rank\n0.png,1\n1.png,2\n")
    index()
    assert found(folder, "rank > 1") == ["1.png"]
    (folder / "metadata.csv").write_text("file_name,rank\n0.png,first\n")
    words = ("index", folder, "--name", "trip", "--method", "slerp")
    assert_one_line(cir(*words), "0.png: the field 'rank' is 'first', of other images it is")
    assert found(folder, "rank > 1") == ["1.png"]
    (folder / "metadata.csv").write_text("file_name,rank\n0.png,first\n1.png,second\n")
    index()
    assert found(folder, 'rank like "sec%"') == ["1.png"]


def test_metadata_from_another_file(folder, tmp_path):
    (tmp_path / "other.jsonl").write_text('{"file_name": "3.png", "tag": "ä"}\n')
    said = run("index", "--name", "trip", "--method", "slerp", "--metadata", tmp_path / "other.jsonl")
    assert "(0 added, 1 updated, 0 removed)" in said
    assert found(folder, 'tag == "ä"') == ["3.png"]


def test_several_libraries(folder, tmp_path, monkeypatch):
    assert "no library has a name" not in run("libraries")
    run("index", folder / "more", "--name", "rest", "--method", "slerp")
    (tmp_path / "home/broken").mkdir()
    (tmp_path / "home/broken/library.sqlite").write_text("x")
    lines = run("libraries").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["broken", "rest", "trip"] and "not a library" in lines[0]
    assert lines[2].endswith(f"6 images in {folder}; clip; path, size, date, author, kept, year")
    assert found(folder, gallery="rest") == ["4.png", "5.png"]
    monkeypatch.setenv("CIR_HOME", str(tmp_path / "empty"))
    assert "no library has a name" in run("libraries")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no folder of images is named"),
        (["--name", "nope"], "nope: no library"),
        (["{folder}", "--name", "../evil"], "library '../evil': a name has letters"),
        (["{folder}", "--name", "a", "--out", "b"], "a library lies in one place"),
        (["{folder}", "--add", "{folder}/0.png"], "there is no library yet; `cir index {folder}` makes it"),
        (["{folder}/more", "--name", "trip", "--add", "x"], "the library in {home}/trip is of {folder}"),
        (["--name", "trip", "--add", "{folder}/0.png", "--method", "slerp"], "name none"),
        (["--name", "trip", "--add", "{folder}/no.png"], "{folder}/no.png: no such file"),
        (["--name", "trip", "--add", "{folder}/notes"], "nothing to add: notes: no image that can be read"),
        (["--name", "trip", "--add", "{folder}/pipe.png"], "nothing to add: pipe.png: neither a file nor a folder"),
        (["--name", "trip", "--add", "{folder}/.hidden"], "nothing to add: .hidden: hidden"),
        (["--name", "trip", "--add", "{folder}/link.png"], "link.png: a link that leads out of the folder {folder}"),
        (["--name", "trip", "--add", "{folder}/../outside.png"], "outside.png: not below {folder}"),
        (["--name", "trip", "--add", "{folder}/" + "x" * 300], "File name too long"),
        (["--name", "trip", "--remove", "3.png", "--remove", "no.png"], "'no.png' is no image of this library"),
        (["--name", "trip", "--remove", "../outside.png"], "'../outside.png' is no image of this library"),
        (["--name", "trip", "--remove", "mor"], "'mor' is no image of this library"),
        (["--name", "trip", "--metadata", "no.csv"], "no.csv: no such file"),
        (["--name", "trip", "--metadata", "{folder}/notes"], "metadata is a .csv, .jsonl or .parquet file"),
    ],
)
def test_each_mistake_is_one_line_and_changes_nothing(folder, tmp_path, words, reason):
    Image.new("RGB", (40, 40), "pink").save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "notes").write_text("words")
    os.mkfifo(folder / "pipe.png")
    Image.new("RGB", (40, 40), "pink").save(folder / ".hidden", "PNG")
    library = Library.open("trip")
    version, places = library.version, {"folder": folder, "home": tmp_path / "home"}
    assert_one_line(cir("index", *(word.format(**places) for word in words)), reason.format(**places))
    assert library.version == version


def test_a_removed_image_cannot_be_removed_or_be_the_reference(folder):
    run("index", "--name", "trip", "--remove", "1.png")
    assert_one_line(cir("index", "--name", "trip", "--remove", "1.png"), "'1.png' is no image of this library")
    words = ("search", "--image", "1.png", "--text", "red", "--gallery", "trip")
    assert_one_line(cir(*words), "image 1.png: there is no such file")


def test_names_that_would_mislead_a_terminal_or_a_database(folder):
    names = ["a'b.png", 'a"b.png', "a;drop table images--.png", "%like_.png", "ünï🙂.png", "back\\slash.png", "-x.png"]
    for name in names:
        shutil.copy(folder / "0.png", folder / name)
    run("index", "--name", "trip", *(f"--add={folder / name}" for name in names))
    assert set(names) < set(Library.open("trip").ids)
    assert found(folder, 'path == "a\\"b.png"') == ['a"b.png'] and found(folder, 'path like "%like_%"') == [
        "%like_.png"
    ]
    run("index", "--name", "trip", *(f"--remove={name}" for name in names))
    assert len(Library.open("trip")) == 6


def test_the_encoder_of_a_library_is_kept(folder, tmp_path):
    from tests.encoders.dual.random_models import save_clip

    encoder = save_clip(tmp_path / "clip")
    run("index", folder, "--name", "own", "--encoder", encoder)
    before = Library.open("own").encoder
    Image.new("RGB", (40, 40), "pink").save(folder / "new.png")
    assert "7 images in clip (1 added" in run("index", "--name", "own")
    Image.new("RGB", (40, 40), "blue").save(folder / "newer.png")
    assert "8 images in clip (1 added" in run("index", "--name", "own", "--add", folder / "newer.png")
    assert Library.open("own").encoder == before and Library.open("own").dim("clip") == 24


def test_nothing_is_added_beside_what_another_model_has_embedded(folder):
    library = Library.open("trip")
    library.commit(spaces={"clip": {"model": "another"}})
    Image.new("RGB", (40, 40), "pink").save(folder / "new.png")
    words = ("index", "--name", "trip", "--add", folder / "new.png")
    assert_one_line(
        cir(*words), f"clip was embedded by other models than the present ones; `cir index {folder} --name trip`"
    )
