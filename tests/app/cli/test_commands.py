"""`cir index` and `cir search` as they are typed."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pipeline.app.cli.main import app, main
from pipeline.app.cli.project import check_not_empty
from pipeline.app.search.searcher import Searcher
from pipeline.config import ParameterError


def cir(*words: object, stdin: str = "") -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def search(image: object, text: str, *options: object, gallery: object = "photos", stdin: str = "") -> Result:
    """A search that must succeed."""
    found = cir("search", "--image", image, "--text", text, "--gallery", gallery, *options, stdin=stdin)
    assert found.exit_code == 0, found.output
    return found


def assert_one_line(result: Result, reason: str) -> None:
    assert result.exit_code == 1 and result.stderr.startswith("error: ")
    assert reason in result.stderr and result.stderr.count("\n") == 1


def test_a_folder_from_nothing_to_an_answer(in_project, tmp_path):
    for number, path in enumerate(sorted(Path("photos").rglob("t*.png"))[:6]):
        (tmp_path / f"{number}.png").write_bytes(path.read_bytes())
    (tmp_path / "not an image.png").write_text("words")
    (tmp_path / "a\x1b[31m\nb").write_bytes(b"%PDF")
    indexed = cir("index", tmp_path, "--method", "slerp")
    assert indexed.exit_code == 0, indexed.output
    assert "6 images in clip" in indexed.output and "2 files left out:" in indexed.output
    assert r"1 x no image that can be read: it is a PDF document (first: a\x1b[31m\nb)" in indexed.output
    listed = cir("rejected", tmp_path)
    assert "  not an image.png: no image that can be read: it is in no known format" in listed.output
    assert r"  a\x1b[31m\nb: " in listed.output and "\x1b" not in listed.output
    found = search(tmp_path / "0.png", "as a chef", "--method", "slerp", "--json", "--top", 9, gallery=tmp_path)
    others = {f"{number}.png" for number in range(1, 6)}
    assert {hit["id"] for hit in json.loads(found.stdout)["hits"]} == others  # the reference is no result


def test_several_methods_and_a_page(photo, tmp_path):
    page = tmp_path / "results.html"
    methods = ("--method", "slerp", "--method", "diffcomp")
    found = search(photo, "as a <b>chef</b>", *methods, "--top", 3, "--html", page, "--negative", "moon")
    assert "slerp" in found.stdout and "diffcomp" in found.stdout
    assert page.read_text().count("data:image/png") == 8 and "<b>chef" not in page.read_text()


def test_texts_from_standard_input_with_models_loaded_once(photo, monkeypatch):
    searchers = []

    def open_searcher(*arguments, **named):
        searchers.append(Searcher(*arguments, **named))
        return searchers[-1]

    monkeypatch.setattr("pipeline.app.search.searcher.Searcher", open_searcher)
    found = search(photo, "-", "--method", "slerp", "--json", stdin="a moon\n\na chef\n")
    assert [json.loads(line)["text"] for line in found.stdout.splitlines()] == ["a moon", "a chef"]
    assert len(searchers) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_of_a_search(photo, threads, monkeypatch):
    used = []
    monkeypatch.setattr("pipeline.runtime.torch.set_num_threads", used.append)
    search(photo, "a moon", "--method", "slerp", *(("--threads", threads) if threads > 1 else ()))
    assert used == [threads]


def test_the_benchmark_is_searched_when_no_gallery_is_named(benchmark_gallery):
    """Its images are no files: the reference is named by its id."""
    image_id = benchmark_gallery.ids[0]
    found = search(image_id, "a moon", "--method", "diffcomp", "--region", "0,0,1,1", "--json", gallery="")
    assert len(json.loads(found.stdout)["hits"]) == 10


TOO_LARGE = "the image has 10000 x 8000 pixels, at most 64000000 are decoded"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"--image": "nowhere.png"}, "image nowhere.png: there is no such file"),
        ({"--image": ""}, "image (none): there is no such file"),
        (
            {"--image": "photos/words.png"},
            "image photos/words.png: the image cannot be decoded: it is in no known format",
        ),
        ({"--image": "bomb.png"}, f"image bomb.png: {TOO_LARGE}"),
        ({"--text": ""}, "the modification is empty"),
        ({"--text": "x" * 5_000}, "the modification has 5,000 characters"),
        ({"--method": "magic"}, "method: 'magic' is not one of"),
        ({"--region": "0,0,9,9", "--method": "diffcomp"}, "region '0,0,9,9': needs"),
        ({"--region": "0,0,1,1", "--method": "slerp"}, "region: slerp takes none"),
        ({"--guidance": "-1"}, "guidance_scale: -1.0 is not between"),
        ({"--top": "0"}, "top: 0 is not between"),
        ({"--gallery": "models"}, "models: not indexed yet; run `cir index models`"),
        (
            {"--gallery": "atlantis"},
            "gallery 'atlantis': no such folder, no library of this name",
        ),
        ({"--image": "photos"}, "image photos: a folder"),
        ({"--html": "photos"}, "--html: photos is a folder"),
        ({"--text": "-"}, "--text -: standard input has no text"),
        ({"--params": "no.yaml"}, "no.yaml: no such parameter file"),
    ],
)
def test_each_mistake_is_one_line(photo, make_bomb, options, reason):
    Path("bomb.png").write_bytes(make_bomb(10_000, 8_000))
    given = {"--image": photo, "--text": "red", "--gallery": "photos", "--html": "never.html"} | options
    assert_one_line(cir("search", *(word for pair in given.items() for word in pair)), reason)
    assert not Path("never.html").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["{empty}/no"], "no such folder"), (["{empty}"], "there is no image"), (["{empty}", "--method", "x"], "'x'")],
)
def test_each_indexing_mistake_is_one_line(in_project, tmp_path, words, reason):
    assert_one_line(cir("index", *(word.format(empty=tmp_path) for word in words)), reason)


def test_a_region_outside_the_square_that_diffcomp_sees_is_harmless(in_project, tmp_path):
    Image.new("RGB", (300, 100), "red").save(tmp_path / "wide.png")
    search(tmp_path / "wide.png", "moon", "--method", "diffcomp", "--region", "0,0,0.2,1")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["index", ""], "an argument is empty"),
        (["index", "photos", "--name", ""], "--name is empty"),
        (["index", "photos", "--name="], "--name is empty"),
        (["search", "--image", "a.png", "--gallery", "", "--text", "red"], "--gallery is empty"),
    ],
)
def test_an_empty_argument_is_no_folder_and_no_name(words, named):
    """An empty path would be the working folder, which nobody has named."""
    with pytest.raises(ParameterError, match=named):
        check_not_empty(words)


def test_the_program_takes_no_empty_argument(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cir", "index", ""])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said == "error: an argument is empty; is a variable of the shell not set?\n"


def test_options_that_may_be_empty():
    check_not_empty(["search", "--image", "a.png", "--text", "", "--where", "", "--negative=", "--json"])


def test_a_filter_that_no_image_passes_is_said(photo):
    found = search(photo, "red", "--method", "slerp", "--where", "size < 0")
    assert "no image passes the filter" in found.stdout
