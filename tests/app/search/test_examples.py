"""The examples that people are told to try work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.app.search.examples import EXAMPLES, Example, as_command
from pipeline.app.search.galleries import BenchmarkGallery
from pipeline.app.search.requests import Request
from pipeline.app.search.searcher import Searcher
from pipeline.config import load_params
from pipeline.query.interface import Controls

ROOT = Path(__file__).parents[3]
MADE = ("models/control/model.safetensors", "data/index/emoji_cir/fused/manifest.json")


def test_the_help_offers_them():
    text = CliRunner().invoke(app, ["search", "--help"], env={"COLUMNS": "200"}).output
    assert [example for example in EXAMPLES if as_command(example) in text] == list(EXAMPLES[:3])


def test_every_search_of_the_readme_is_one_of_them():
    shown = re.findall(r'--image (twemoji/\S+) --text "([^"]+)"', (ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown and set(shown) <= {(example.reference, example.text) for example in EXAMPLES}


@pytest.fixture(scope="module")
def trained():
    if missing := [name for name in MADE if not (ROOT / name).is_file()]:
        pytest.skip(f"`dvc repro` has not been run here: there is no {missing[0]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        searcher = Searcher(load_params(), BenchmarkGallery())
        if searcher.params.profile != "offline":
            pytest.skip("the models are another profile's")
        yield searcher


@pytest.mark.parametrize("example", EXAMPLES, ids=as_command)
def test_the_target_is_found_first(trained, example: Example):
    image = trained.gallery.image(example.reference)
    answer = trained.search(Request(image, example.text, "fusion_diff", 3, exclude=example.reference))
    assert answer.hits[0].image_id == example.target


@pytest.mark.parametrize("method", ["fusion_diff", "diffcomp_relative", "slerp", "cirevl"])
def test_a_negative_word_brings_none_that_has_it_as_a_part(trained, method):
    """`man` is in `mountain` as letters alone: texts are encoded whole, so what is left out is a man."""
    for example in EXAMPLES:
        request = Request(
            trained.gallery.image(example.reference),
            example.text,
            method,
            3,
            exclude=example.reference,
            controls=Controls(negative="man"),
        )
        assert not any("mountain" in hit.name for hit in trained.search(request).hits)
