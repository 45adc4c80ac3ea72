"""LDRE and OSrCIR: their texts, and LDRE's weights by hand."""

import math

import numpy as np
import pytest

from pipeline.config import ParameterError
from pipeline.config.peers import OsrcirParams
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.image_source import ImageTable
from pipeline.query.interface import ControlError, Controls
from pipeline.query.models import Models
from pipeline.query.reasoning_family import ensemble_weights, final_answer, load
from pipeline.query.registry import methods
from pipeline.retrieval import Query

QUERIES = [
    Query("q0", "red ball", ("with a hat",), ("blue cat",)),
    Query("q1", "red cat", ("in green",), ("blue cat",)),
    Query("q2", "red ball", ("in green",), ("blue cat",)),
]


class Writer:
    """Captions an image in so many ways as it is asked for, answers a text in capitals, and reasons where asked to."""

    def __init__(self):
        self.inputs, self.bounds = [], []

    def generate(self, inputs, max_new_tokens, sequences=1):
        self.inputs += inputs
        self.bounds.append(max_new_tokens)
        return [self._answers(one, sequences) for one in inputs]

    def _answers(self, one, sequences):
        if one.text.startswith("Reason"):
            return [f"It is red.\nTarget: {one.text[7:]}, a cat\nDone."]
        if one.image is None:
            return [one.text.upper()]
        return [f"caption {number} of {one.image.getpixel((0, 0))[0]}" for number in range(sequences)]


@pytest.fixture
def images(workspace) -> ImageTable:
    return ImageTable("data/pairs/images")


@pytest.fixture
def opened(workspace):
    """Opens the family with a method configured; returns it and what writes for it."""

    def open_family(name: str):
        workspace.peers.described = [name]
        models = Models(workspace)
        models.writer = Writer()
        return load(models), models.writer

    return open_family


def encoded(texts, backbone: str) -> np.ndarray:
    encoder = load_dual_encoder(backbone)
    return encoder.encode_text(encoder.tokenize(texts)).detach().numpy()


def test_by_default_there_are_none(workspace):
    assert not {"ldre", "osrcir"} & set(methods(workspace))
    workspace.peers.described = ["osrcir"]
    assert "osrcir" in methods(workspace) and "ldre" not in methods(workspace)
    workspace.describer.path = ""
    assert "osrcir" not in methods(workspace)


def test_repetitions_share_a_voice():
    same, other = [1.0, 0.0], [0.0, 1.0]
    weights = ensemble_weights(np.array([[same, same, other]]), np.zeros((1, 3)), 1.0)
    np.testing.assert_allclose(weights, [[0.25, 0.25, 0.5]])


def test_a_fitting_caption_weighs_more_by_the_softmax():
    weights = ensemble_weights(np.eye(2)[None], np.array([[0.3, 0.1]]), 0.1)
    expected = math.exp(2) / (1 + math.exp(2))
    np.testing.assert_allclose(weights, [[expected, 1 - expected]])


def test_opposed_captions_have_no_negative_voice():
    weights = ensemble_weights(np.array([[[1.0, 0.0], [-1.0, 0.0]]]), np.zeros((1, 2)), 1.0)
    np.testing.assert_allclose(weights, [[0.5, 0.5]])


def test_ldre_edits_every_caption_of_a_reference(opened, images, workspace):
    workspace.retrieve.edit_prompt, workspace.peers.ldre.captions = "{caption}; {modification}", 2
    family, writer = opened("ldre")
    found = family.answer(QUERIES, images)["ldre"]
    assert found.descriptions[0] == ["CAPTION 0 OF 0; WITH A HAT", "CAPTION 1 OF 0; WITH A HAT"]
    assert found.descriptions[2][1] == "CAPTION 1 OF 0; IN GREEN"
    assert sum(one.image is not None for one in writer.inputs) == 2  # an image is captioned once
    backbone = workspace.diffcomp.backbone
    edited = encoded([text for texts in found.descriptions for text in texts], backbone).reshape(3, 2, -1)
    captions = encoded([f"caption {number} of 0" for number in range(2)], backbone)
    encoder = load_dual_encoder(backbone)
    pixels = encoder.normalise(images.pixels(["red ball"], encoder.image_size))
    similarity = captions @ encoder.encode_image(pixels).detach().numpy()[0]
    weights = ensemble_weights(edited[:1], similarity[None], workspace.peers.ldre.temperature)
    expected = weights[0] @ edited[0]
    np.testing.assert_allclose(found.vectors[0], expected / np.linalg.norm(expected), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, rtol=1e-5)


def test_without_an_edit_prompt_ldre_takes_several_descriptions(opened, images, workspace):
    workspace.retrieve.edit_prompt, workspace.peers.ldre.captions = "", 3
    family, writer = opened("ldre")
    found = family.answer(QUERIES, images, descriptions=[["ignored"]] * 3)["ldre"]
    assert found.descriptions[1] == [f"caption {number} of 20" for number in range(3)]
    assert all("in green" in one.text or "with a hat" in one.text for one in writer.inputs)


def test_osrcir_searches_with_the_end_of_its_reasoning(opened, images, workspace):
    workspace.peers.osrcir.prompt, workspace.peers.osrcir.max_new_tokens = "Reason {modification}", 77
    family, writer = opened("osrcir")
    found = family.answer(QUERIES, images)["osrcir"]
    assert [text for (text,) in found.descriptions] == ["with a hat, a cat", "in green, a cat", "in green, a cat"]
    assert set(writer.bounds) == {77} and all(one.image is not None for one in writer.inputs)
    expected = encoded([text for (text,) in found.descriptions], workspace.diffcomp.backbone)
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)


def test_without_a_prompt_osrcir_takes_the_given_description(opened, images):
    family, writer = opened("osrcir")
    found = family.answer(QUERIES, images, descriptions=[["a"], ["b"], ["c"]])["osrcir"]
    assert found.descriptions == [["a"], ["b"], ["c"]] and not writer.inputs


@pytest.mark.parametrize(
    ("answer", "description"),
    [
        ("Some thoughts.\nTarget: a cat\nThat is all.", "a cat"),
        ("Target: no\nTarget:\n a green cat ", "a green cat"),
        ("Thoughts\na cat without the mark\n", "a cat without the mark"),
        ("Thoughts. Target:", ""),
        ("", ""),
    ],
)
def test_the_description_ends_the_answer(answer, description):
    assert final_answer(answer, "Target:") == description


def test_texts_are_inferred_ahead(opened, images, workspace):
    workspace.peers.osrcir.prompt = "Reason {modification}"
    family, writer = opened("osrcir")
    family._models.describer.keeps_texts = True
    family.infer_texts(QUERIES, images)
    asked = len(writer.inputs)
    family.answer(QUERIES, images)
    assert len(writer.inputs) == asked == 3


def test_a_negative_text_turns_and_a_region_is_refused(opened, images):
    family, _ = opened("ldre")
    plain, turned = (
        family.answer(QUERIES, images, controls)["ldre"].vectors
        for controls in (Controls(), Controls(negative="a dog"))
    )
    assert not np.allclose(plain, turned, atol=1e-3)
    with pytest.raises(ControlError, match="ldre takes none"):
        family.answer(QUERIES, images, Controls(region=images.image("red ball", 0)))


@pytest.mark.parametrize(
    ("prompt", "answer", "message"),
    [("Think.", "Target:", "lacks {modification}"), ("Think: {modification}", " ", "answer is empty")],
)
def test_bad_prompts_are_refused(prompt, answer, message):
    with pytest.raises(ParameterError, match=message):
        OsrcirParams(prompt=prompt, answer=answer, max_new_tokens=8)
