"""Variants on disk: stored, loaded, and read where they were saved before a parameter was one."""

import dataclasses
import json

import pytest
import torch

from pipeline.artifacts import ArtifactError
from pipeline.config import DiffCompParams
from pipeline.config.section import ParameterError
from pipeline.diffcomp import load_diffcomp, save_diffcomp
from pipeline.diffcomp.checkpoints import ADDED_SINCE, saved_params


def composed(model, pixels):
    """f_comp of every image and a caption of its own."""
    texts = model.encoder.tokenize([f"a dog with {number} balls" for number in range(len(pixels))])
    with torch.no_grad():
        return model.eval().compose(model.encoder.normalise(pixels), texts)


def test_store_and_load(make_model, make_encoder, pixels, tmp_path):
    model = make_model(super_patch=4, phi=0.2)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    save_diffcomp(tmp_path, model)
    again = load_diffcomp(tmp_path, make_encoder())
    assert dataclasses.asdict(again.params) == dataclasses.asdict(model.params)
    assert torch.equal(composed(again, pixels), composed(model, pixels))
    with pytest.raises(ArtifactError, match="tensor"):
        load_diffcomp(tmp_path, make_encoder(vision_layers=4))


def edited(folder, change):
    """The saved parameters, changed in place."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config["diffcomp"])
    path.write_text(json.dumps(config))


def test_a_model_saved_before_a_parameter_was_one_means_what_the_code_did(make_model, make_encoder, pixels, tmp_path):
    model = make_model()
    save_diffcomp(tmp_path, model)
    edited(tmp_path, lambda saved: [saved.pop(name) for name in ("beta2", "data", "image_size")])
    again = load_diffcomp(tmp_path, make_encoder())
    assert (again.params.beta2, again.params.image_size) == (0.999, 0)  # AdamW's own; the checkpoint's own size
    assert dataclasses.astuple(again.params.data) == ([], 1.0, 0)  # all pairs of all sources
    assert torch.equal(composed(again, pixels), composed(model, pixels))


def test_what_was_saved_counts_before_what_was_added(make_model, tmp_path):
    save_diffcomp(tmp_path, make_model())
    edited(tmp_path, lambda saved: saved.update(beta2=0.98))
    assert saved_params(tmp_path).beta2 == 0.98


def test_what_was_added_are_parameters():
    assert set(ADDED_SINCE) <= {field.name for field in dataclasses.fields(DiffCompParams)}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda saved: saved.pop("phi"), "phi"),
        (lambda saved: saved.update(alpha_base=0.5), "alpha_base"),
        (lambda saved: saved.update(masking="nowhere"), "nowhere"),
    ],
    ids=["missing", "unknown", "no such value"],
)
def test_other_parameters_are_refused_by_name(make_model, tmp_path, change, message):
    save_diffcomp(tmp_path, make_model())
    edited(tmp_path, change)
    with pytest.raises(ParameterError, match=rf"config\.json.*{message}|diffcomp\.masking.*{message}"):
        saved_params(tmp_path)
