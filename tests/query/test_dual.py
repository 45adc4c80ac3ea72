"""The methods over dual encoders, with variants of two training steps."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.artifacts import ArtifactError
from pipeline.config import Params
from pipeline.encoders.image_source import ImageTable
from pipeline.query import dual_family
from pipeline.query.interface import ControlError, Controls, Family
from pipeline.query.models import Models
from pipeline.query.registry import find_method
from pipeline.retrieval import Query, build_index
from pipeline.retrieval.spaces import open_index
from stages import train_diffcomp
from tests.stages.conftest import DIM, write_vectors

REFERENCES = ("red ball", "red cat", "green dog", "blue hat")
QUERIES = [
    Query(f"q{number}", reference, ("with a hat",), ("blue cat",)) for number, reference in enumerate(REFERENCES)
]


@pytest.fixture
def family(workspace) -> Family:
    train_diffcomp.main()
    return dual_family.load(Models(workspace))


@pytest.fixture
def images(family) -> ImageTable:
    return ImageTable("data/pairs/images")


def test_every_method_searches_its_space(family, images):
    found = family.answer(QUERIES, images)
    assert {name: one.space for name, one in found.items()} == {
        "image_only": "clip",
        "text_only": "clip",
        "image_text": "clip",
        "slerp": "clip",
        "diffcomp_row1": "diffcomp_row1",
        "diffcomp": "diffcomp",
    }
    assert set(family.spaces) == {"clip", "diffcomp_row1", "diffcomp"}
    for one in found.values():
        assert one.vectors.shape == (4, DIM)
        np.testing.assert_allclose(np.linalg.norm(one.vectors, axis=-1), 1.0, rtol=1e-5)


def test_one_query_gets_what_it_gets_among_many(family, images):
    for controls in (Controls(), Controls(negative="a dog")):
        many = family.answer(QUERIES, images, controls)
        for row, query in enumerate(QUERIES):
            for method in family.methods:
                one = family.answer([query], images, controls, methods=[method])
                assert list(one) == [method]
                np.testing.assert_allclose(one[method].vectors[0], many[method].vectors[row], atol=1e-5)


@torch.inference_mode()
def test_the_weighted_sum_is_that_of_the_backbone_s_own_vectors(family, images):
    encoder, query = family.backbone, QUERIES[0]
    image = encoder.encode_image(encoder.normalise(images.pixels([query.reference_id], encoder.image_size)))
    text = encoder.encode_text(encoder.tokenize([query.text]))
    weight = family.params.retrieve.image_text
    expected = torch.nn.functional.normalize((1 - weight) * image + weight * text, dim=-1)
    found = family.answer([query], images, methods=["image_text"])["image_text"].vectors
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_a_region_is_for_variants_alone(family, images):
    whole = Controls(region=Image.new("L", (32, 32), 255))
    masked = family.answer(QUERIES, images, whole, methods=["diffcomp"])["diffcomp"].vectors
    plain = family.answer(QUERIES, images, methods=["diffcomp"])["diffcomp"].vectors
    assert np.abs(masked - plain).max() > 1e-4
    with pytest.raises(ControlError, match="region: slerp takes none"):
        family.answer(QUERIES, images, whole, methods=["slerp"])


def test_what_is_kept_of_the_reference(family, images):
    kept = family.explain("diffcomp", QUERIES[0], images)
    assert kept.shape == (4, 4) and ((kept > 0) & (kept <= 1)).all() and kept.min() < 1
    assert family.explain("slerp", QUERIES[0], images) is None


def test_only_the_variants_that_are_asked_for_are_opened(family, workspace, monkeypatch):
    models = Models(workspace)
    opened = []
    monkeypatch.setattr(models, "diffcomp", lambda name: opened.append(name) or family.variants[name])
    assert list(dual_family.load(models, only=["slerp"]).methods) == ["slerp"] and not opened
    assert list(dual_family.load(models, only=["diffcomp"]).methods) == ["diffcomp"] and opened == ["diffcomp"]


def test_a_variant_without_a_label_is_shown_under_its_name(workspace: Params):
    workspace.diffcomp_variants["mine"] = {}
    method = find_method("mine", workspace)
    assert (method.label, method.space, method.group) == ("mine", "mine", "Other")
    assert find_method("diffcomp", workspace).label == "DiffComp"


def test_a_gallery_of_another_model_is_rejected(family, workspace):
    for space, identity in (("clip", family.spaces["clip"].identity), ("diffcomp", {"diffcomp": "another model"})):
        write_vectors(f"data/gallery/{space}", ["one", "two"], 0, identity)
        build_index(f"data/gallery/{space}", f"data/index/{space}", workspace.index)
    assert open_index("data/index", family.spaces["clip"]).ids == ["one", "two"]
    with pytest.raises(ArtifactError, match="its gallery has diffcomp = 'another model'"):
        open_index("data/index", family.spaces["diffcomp"])
