"""Images that are removed after indexing: results show a placeholder, and only a reference must be there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.app.page.events import NO_METHOD, PageEvents, SearchForm
from pipeline.app.search.galleries import BenchmarkGallery, open_gallery, placeholder
from pipeline.app.search.indexing import index_folder
from pipeline.app.search.searcher import Searcher
from pipeline.artifacts import ArtifactError
from pipeline.config import load_params

WAYS = {
    "removed": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "replaced by a folder": lambda path: (path.unlink(), path.mkdir()),
    "replaced by words": lambda path: path.write_text("words"),
}


@pytest.fixture(params=WAYS)
def folder(in_project, tmp_path, request) -> Path:
    """Six indexed images, two of which cannot be read any more."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted(Path("photos").rglob("t*.png"))[:6]):
        shutil.copy(path, photos / f"{number}.png")
    index_folder(photos, load_params(), methods=["slerp"])
    for name in ("1.png", "2.png"):
        WAYS[request.param](photos / name)
    return photos


def search(folder: Path, image: object, *options: object):
    words = ["search", "--image", image, "--text", "a moon", "--gallery", folder, "--method", "slerp", *options]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_answers_in_full(folder, tmp_path):
    page = tmp_path / "page.html"
    found = search(folder, folder / "0.png", "--json", "--html", page)
    assert found.exit_code == 0, found.output
    assert {hit["id"] for hit in json.loads(found.stdout)["hits"]} == {f"{number}.png" for number in range(1, 6)}
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/png") == 6 and html.count(" · gone<br>") == 2
    assert search(folder, folder / "0.png").exit_code == 0


@pytest.mark.parametrize("named", ["1.png", "{folder}/1.png"])
def test_a_reference_that_is_gone_is_one_line(folder, named):
    found = search(folder, named.format(folder=folder))
    assert found.exit_code == 1 and found.stderr.count("\n") == 1 and found.stderr.startswith("error: ")
    assert "1.png" in found.stderr and "No such" not in found.stderr


def test_the_page_answers_in_full(folder):
    searcher = Searcher(load_params(), open_gallery(folder))
    events = PageEvents(searcher)
    scales = {"guidance": 1.0, "control": 1.0, "hypotheses": 2, "top": 5, "rerank": 0, "editor": None}
    texts = {"text": "a moon", "negative": "", "concept": ""}
    form = SearchForm(str(folder / "0.png"), "0.png", method="slerp", second_method=NO_METHOD, **texts, **scales)
    results = events.search(form)
    first = results.panels[0]
    assert results.message == "" and sorted(first.image_ids) == [f"{number}.png" for number in range(1, 6)]
    gone = [image for image, caption in first.thumbnails if caption.endswith(" · gone")]
    assert len(gone) == 2
    np.testing.assert_array_equal(gone[0], placeholder())
    suggested, ids = events.suggest("", 0)
    assert len(suggested) == 6 and sum(caption.endswith(" · gone") for _, caption in suggested) == 2
    with pytest.raises(ArtifactError, match="1.png"):
        events.gallery_image("1.png")
    assert "this reference cannot be used" in events.search(replace(form, reference=str(folder / "1.png"))).message


def test_a_benchmark_whose_image_file_is_gone_is_shown_too(benchmark_gallery: BenchmarkGallery, monkeypatch):
    def gone(image_id):
        raise ArtifactError(f"{image_id}.png: the image is gone since the stage prepare named it")

    monkeypatch.setattr(benchmark_gallery._images, "image", gone)
    assert benchmark_gallery.shown(benchmark_gallery.ids[0]).is_gone
