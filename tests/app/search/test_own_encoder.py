"""Photographs without training: a folder indexed and searched with an encoder of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.app.search.galleries import open_gallery
from pipeline.app.search.indexing import index_folder
from pipeline.app.search.library import Library
from pipeline.app.search.own_encoder import OwnEncoder, knows_emoji_only, parse_encoder
from pipeline.app.search.requests import Request
from pipeline.app.search.searcher import Searcher
from pipeline.config import ParameterError, load_params
from pipeline.query.dual_family import COMPOSITIONS
from tests.encoders.dual.random_models import save_clip, save_siglip


@pytest.fixture
def photos(in_project, tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(Path("photos").rglob("t*.png"))[:8]:
        shutil.copy(path, folder / path.name)
    return folder


@pytest.fixture(params=[save_clip, save_siglip])
def encoder(request, tmp_path) -> Path:
    return request.param(tmp_path / "encoder")


def test_a_folder_is_indexed_and_searched_with_it_from_the_command_line(photos, encoder):
    run = CliRunner().invoke(app, ["index", str(photos), "--encoder", str(encoder)])
    assert run.exit_code == 0, run.output
    assert "8 images in clip" in run.output and "emoji only" not in run.output
    name = sorted(photos.glob("*.png"))[0]
    run = CliRunner().invoke(app, ["search", "--gallery", str(photos), "--image", str(name), "--text", "a red fox"])
    assert run.exit_code == 0, run.output
    assert "slerp" in run.output.lower() and "emoji only" not in run.output


def test_the_library_keeps_the_encoder_and_offers_its_methods_alone(photos, encoder):
    params = load_params()
    index_folder(photos, params, encoder=OwnEncoder(str(encoder)))
    gallery = open_gallery(photos)
    searcher = Searcher(params, gallery)
    assert gallery.encoder == OwnEncoder(str(encoder)) and gallery.default_method == "slerp"
    assert set(searcher.methods) == {*COMPOSITIONS, "slerp_roles", "image_text_roles"}
    with pytest.raises(ParameterError, match="fusion_diff"):
        searcher.search(Request(Image.new("RGB", (40, 30)), "a red fox", "fusion_diff"))


def test_image_only_finds_the_reference_itself(photos, encoder):
    params = load_params()
    index_folder(photos, params, encoder=OwnEncoder(str(encoder)))
    searcher = Searcher(params, open_gallery(photos))
    for path in sorted(photos.glob("*.png")):
        answer = searcher.search(Request(Image.open(path).convert("RGB"), "a dog", "image_only"))
        assert answer.hits[0].image_id == path.name
        assert answer.hits[0].score == pytest.approx(1, abs=1e-4)


def test_another_encoder_embeds_anew(photos, tmp_path):
    params = load_params()
    first, second = save_clip(tmp_path / "first"), save_siglip(tmp_path / "second")
    index_folder(photos, params)
    assert "fused" in open_gallery(photos).spaces
    index_folder(photos, params, encoder=OwnEncoder(str(first)))
    assert open_gallery(photos).spaces == ["clip"]  # what other models have embedded is not searched with this one
    before = np.concatenate([vectors for *_, vectors in Library.open(photos).vectors("clip")])
    index_folder(photos, params, encoder=OwnEncoder(str(second)))
    after = np.concatenate([vectors for *_, vectors in Library.open(photos).vectors("clip")])
    assert (before.shape, after.shape) == ((8, 24), (8, 32))


def test_a_change_of_the_encoder_that_fails_leaves_the_library_as_it_was(photos, tmp_path):
    params, first = load_params(), save_clip(tmp_path / "first")
    index_folder(photos, params, encoder=OwnEncoder(str(first)))
    library = Library.open(photos)
    before = np.concatenate([vectors for *_, vectors in library.vectors("clip")])
    second = save_siglip(tmp_path / "second")
    weights = next(second.glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match="second"):
        index_folder(photos, params, encoder=OwnEncoder(str(second)))
    assert library.encoder == Library.open(photos).encoder == OwnEncoder(str(first))
    assert np.array_equal(np.concatenate([vectors for *_, vectors in library.vectors("clip")]), before)
    assert Searcher(params, open_gallery(photos)).search(Request(Image.new("RGB", (40, 30)), "red", "slerp")).hits
    weights.write_bytes(whole)
    index_folder(photos, params, encoder=OwnEncoder(str(second)))
    assert library.encoder == OwnEncoder(str(second)) and library.dim("clip") == 32


def test_emoji_models_say_what_they_know(photos):
    run = CliRunner().invoke(app, ["index", str(photos), "--method", "slerp"])
    assert run.exit_code == 0 and "emoji only" in run.output and f"cir index {photos} --encoder" in run.output
    name = sorted(photos.glob("*.png"))[0]
    arguments = ["search", "--gallery", str(photos), "--image", str(name), "--text", "red", "--method", "slerp"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0 and "emoji only" in run.stderr
    assert knows_emoji_only(load_params())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ViT-B-32", "names no weights; ViT-B-32 has openai"),
        ("ViT-B-32/imagenet", "names no weights"),
        ("clip", "is no folder"),
        ("a/b/c", "is no folder"),
        ("no/", "is no folder"),
    ],
)
def test_a_wrong_encoder_is_one_line(text, said, in_project):
    with pytest.raises(ParameterError) as raised:
        parse_encoder(text)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_the_ways_to_name_an_encoder(tmp_path):
    assert parse_encoder("ViT-B-32/openai") == OwnEncoder("ViT-B-32", "openai")
    assert parse_encoder("google/siglip-base-patch16-224") == OwnEncoder("google/siglip-base-patch16-224")
    assert parse_encoder(str(tmp_path)) == OwnEncoder(str(tmp_path))
