"""Trained models written for a hub, and loaded again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.app.release import pretrained
from pipeline.artifacts import ArtifactError
from pipeline.decoder import Decoder, DecoderSizes
from pipeline.decoder.checkpoints import save_decoder
from pipeline.diffcomp import load_diffcomp
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.identity import mllm_identity
from pipeline.fusion_diff.checkpoints import load_prior
from tests.app.conftest import small_params


def export(*arguments: str):
    return CliRunner().invoke(app, ["export", *arguments])


@pytest.fixture
def exported(in_project, tmp_path) -> Path:
    done = export(str(tmp_path / "out"), "--license", "apache-2.0")
    assert done.exit_code == 0, done.output
    return tmp_path / "out"


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_written_is_loaded_again(exported, monkeypatch):
    originals = (
        load_prior("models/prior")[0],
        load_diffcomp("models/diffcomp/diffcomp", load_dual_encoder(small_params().diffcomp.backbone)),
    )
    assert sorted(path.name for path in exported.iterdir()) == ["control-adapter", "diffcomp", "prior"]
    monkeypatch.chdir(exported)  # nothing of the project is at hand
    prior, diffusion = pretrained.load_prior("prior")
    assert same(prior, originals[0]) and diffusion
    assert same(pretrained.load_controlled_prior("control-adapter", "prior").prior, prior)
    assert same(pretrained.load_diffcomp(exported / "diffcomp"), originals[1])


def test_a_decoder_is_loaded_again(in_project, tmp_path, monkeypatch):
    params = replace(small_params().decoder, width=32, layers=1, heads=2, cross_heads=1, tokens=2, token_width=16)
    decoder = Decoder(DecoderSizes.from_params(params, 256)).half().float()
    monkeypatch.setattr("pipeline.app.release.models.DECODER", tmp_path / "decoder")
    save_decoder(tmp_path / "decoder", decoder, params, mllm_identity(small_params().embedder))
    done = export(str(tmp_path / "out"), "--model", "decoder", "--license", "mit")
    assert done.exit_code == 0, done.output
    monkeypatch.chdir(tmp_path)
    assert same(pretrained.load_decoder("out/decoder"), decoder)
    card = ModelCard.load("out/decoder/README.md")
    assert card.data.license == "mit" and "import load_decoder" in card.text
    with pytest.raises(ArtifactError, match="this is another kind of model"):
        pretrained.load_prior("out/decoder")


def test_cards_are_as_hubs_read_them(exported):
    for name, function in {"prior": "load_prior", "control-adapter": "load_controlled_prior"}.items():
        card = ModelCard.load(exported / name / "README.md")
        assert card.data.license == "apache-2.0" and "composed-image-retrieval" in card.data.tags
        assert f"import {function}" in card.text and "knows emoji only" in card.text
    count = sum(value.numel() for value in pretrained.load_prior(exported / "prior")[0].state_dict().values())
    assert f"| parameters | {count:,} |" in (exported / "prior/README.md").read_text()


def test_an_export_replaces_an_earlier_one_and_nothing_else(exported, tmp_path):
    assert export(str(exported), "--model", "prior").exit_code == 0
    (tmp_path / "mine/prior").mkdir(parents=True)
    done = export(str(tmp_path / "mine"), "--model", "prior")
    assert done.exit_code == 1 and "is there, and holds no model" in done.output
    assert list((tmp_path / "mine/prior").iterdir()) == []


@pytest.mark.parametrize(
    ("model", "message"),
    [("magic", "model: 'magic' is not one of prior, control-adapter, decoder"), ("decoder", "is not trained yet")],
)
def test_what_cannot_be_exported(in_project, tmp_path, model, message):
    done = export(str(tmp_path / "out"), "--model", model)
    assert done.exit_code == 1 and message in done.output and not (tmp_path / "out").exists()


@pytest.mark.parametrize("licence", ["", "no licence: {}", "Apache 2.0", "../x"])
def test_a_licence_is_a_name_that_hubs_know(in_project, tmp_path, licence):
    done = export(str(tmp_path / "out"), "--license", licence)
    assert done.exit_code == 1 and "is no name that hubs know" in done.output and not (tmp_path / "out").exists()


def test_wrong_and_damaged_models_are_named(exported):
    with pytest.raises(ArtifactError, match="'diffcomp' is missing: this is another kind of model"):
        pretrained.load_diffcomp(exported / "prior")
    config = json.loads((exported / "control-adapter/config.json").read_text())
    (exported / "control-adapter/config.json").write_text(json.dumps(config | {"prior": "0" * 64}))
    with pytest.raises(ArtifactError, match="trained with prior"):
        pretrained.load_controlled_prior(exported / "control-adapter", exported / "prior")
    weights = exported / "prior/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="does not match the SHA-256"):
        pretrained.load_prior(exported / "prior")


def test_a_name_that_no_hub_has(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError, match="team/none: no such folder, and no hub gave it"):
        pretrained.load_prior("team/none")
