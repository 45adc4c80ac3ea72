"""`cir index` and `cir search` as they are typed."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.app.cli.main import app


def cir(*words: str, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


def test_a_folder_from_nothing_to_an_answer(in_project, photo, tmp_path):
    for number, path in enumerate(sorted(Path("photos").rglob("t*.png"))[:6]):
        (tmp_path / f"{number}.png").write_bytes(path.read_bytes())
    (tmp_path / "not an image.png").write_text("words")
    indexed = cir("index", tmp_path, "--method", "slerp")
    assert indexed.exit_code == 0, indexed.output
    assert "6 images in clip" in indexed.output and "1 images rejected" in indexed.output
    found = cir(
        "search",
        "--image",
        tmp_path / "0.png",
        "--text",
        "as a chef",
        "--method",
        "slerp",
        "--gallery",
        tmp_path,
        "--json",
        "--top",
        9,
    )
    assert found.exit_code == 0, found.output
    assert {hit["id"] for hit in json.loads(found.stdout)["hits"]} == {
        f"{number}.png" for number in range(1, 6)
    }  # the reference is none


def test_several_methods_and_a_page(in_project, photo, tmp_path):
    page = tmp_path / "answer.html"
    found = cir(
        "search",
        "--image",
        photo,
        "--text",
        "as a <b>chef</b>",
        "--method",
        "slerp",
        "--method",
        "diffcomp",
        "--gallery",
        "photos",
        "--top",
        3,
        "--html",
        page,
        "--negative",
        "moon",
    )
    assert found.exit_code == 0, found.output
    assert "slerp" in found.stdout and "diffcomp" in found.stdout
    assert page.read_text().count("data:image/png") == 8 and "<b>chef" not in page.read_text()


def test_texts_from_standard_input_with_models_loaded_once(in_project, photo):
    found = cir(
        "search",
        "--image",
        photo,
        "--text",
        "-",
        "--method",
        "slerp",
        "--gallery",
        "photos",
        "--json",
        input="a moon\n\na chef\n",
    )
    assert [json.loads(line)["text"] for line in found.stdout.splitlines()] == ["a moon", "a chef"]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_that_were_asked_for(in_project, photo, threads, monkeypatch):
    used = []
    monkeypatch.setattr("pipeline.runtime.torch.set_num_threads", used.append)
    asked = ("--threads", threads) if threads > 1 else ()
    found = cir("search", "--image", photo, "--text", "a moon", "--method", "slerp", "--gallery", "photos", *asked)
    assert found.exit_code == 0 and used == [threads]


def test_the_benchmark_is_searched_when_no_gallery_is_named(in_project, benchmark_gallery):
    """Its images are no files: the reference is named by its id."""
    name = benchmark_gallery.ids[0]
    benchmark_ids = cir(
        "search", "--image", name, "--text", "a moon", "--method", "diffcomp", "--region", "0,0,1,1", "--json"
    )
    assert benchmark_ids.exit_code == 0, benchmark_ids.output
    assert len(json.loads(benchmark_ids.stdout)["hits"]) == 10


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--image", "nowhere.png"], "image nowhere.png: there is no such file"),
        (["--image", ""], "image (none): there is no such file"),
        (["--image", "photos/words.png"], "image photos/words.png: it is no image in a known format"),
        (
            ["--image", "bomb.png"],
            "image bomb.png: the image has 10000 x 5000 pixels (50.0 megapixels), at most 40 megapixels are taken",
        ),
        (["--text", ""], "the modification is empty"),
        (["--text", "x" * 5_000], "the modification has 5,000 characters"),
        (["--method", "magic"], "method: 'magic' is not one of"),
        (["--region", "0,0,9,9", "--method", "diffcomp"], "region '0,0,9,9': needs"),
        (["--region", "0,0,1,1", "--method", "slerp"], "region: slerp takes none, only DiffComp does"),
        (["--guidance", "-1"], "guidance_scale: -1.0 is not between"),
        (["--top", "0"], "top: 0 is not between"),
        (["--gallery", "models"], "models: not indexed yet; run `cir index models`"),
        (["--gallery", "atlantis"], "there is no index yet"),
        (["--params", "no.yaml"], "no.yaml: no such parameter file"),
    ],
)
def test_each_mistake_is_one_line(in_project, photo, make_bomb, words, reason):
    Path("bomb.png").write_bytes(make_bomb(10_000, 5_000))
    given = {"--image": photo, "--text": "red", "--gallery": "photos"} | dict(zip(words[::2], words[1::2], strict=True))
    found = cir("search", *(word for pair in given.items() for word in pair), "--html", "never.html")
    assert found.exit_code == 1 and reason in found.stderr and found.stderr.count("\n") == 1
    assert not Path("never.html").exists()


def test_indexing_mistakes_are_one_line(in_project, tmp_path):
    mistakes = (
        ([tmp_path / "no"], "no such folder"),
        ([tmp_path], "there is no image"),
        ([tmp_path, "--method", "x"], "method: 'x'"),
    )
    for words, reason in mistakes:
        result = cir("index", *words)
        assert result.exit_code == 1 and result.stderr.startswith("error: ") and reason in result.stderr


def test_what_is_painted_outside_the_square_is_harmless(in_project, tmp_path):
    Image.new("RGB", (300, 100), "red").save(tmp_path / "wide.png")
    found = cir(
        "search",
        "--image",
        tmp_path / "wide.png",
        "--text",
        "moon",
        "--method",
        "diffcomp",
        "--gallery",
        "photos",
        "--region",
        "0,0,0.2,1",
    )
    assert found.exit_code == 0, found.output
