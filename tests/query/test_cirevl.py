"""CIReVL, and what f_M writes about references."""

import numpy as np
import pytest

from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.image_source import ImageTable
from pipeline.query.cirevl_family import Cirevl
from pipeline.query.describer import with_shared_concepts
from pipeline.query.interface import Controls
from pipeline.query.models import Models
from pipeline.retrieval import Query

REFERENCES = ("red ball", "red cat", "red ball")
QUERIES = [
    Query(f"q{number}", reference, ("with a hat",), ("blue cat",)) for number, reference in enumerate(REFERENCES)
]
DESCRIPTIONS = [["a ball with a hat", "ignored"], ["a cat with a hat"], ["with a hat"]]


class Writer:
    """Captions what it sees by its colour, and answers a text with that text's words in capitals."""

    def __init__(self):
        self.inputs = []

    def generate(self, inputs, max_new_tokens, sequences=1):
        self.inputs += inputs
        return [[f"a dog number {one.image.getpixel((0, 0))[0]}" if one.image else one.text.upper()] for one in inputs]


@pytest.fixture
def images(workspace) -> ImageTable:
    return ImageTable("data/pairs/images")


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def family(workspace, writer) -> Cirevl:
    models = Models(workspace)
    models.writer = writer
    return Cirevl(models)


def encoded(texts: list[str], backbone: str) -> np.ndarray:
    encoder = load_dual_encoder(backbone)
    return encoder.encode_text(encoder.tokenize(texts)).detach().numpy()


def test_without_an_edit_prompt_the_description_is_the_text(family, writer, images, workspace):
    found = family.answer(QUERIES, images, descriptions=DESCRIPTIONS)["cirevl"]
    expected = encoded(["a ball with a hat", "a cat with a hat", "with a hat"], workspace.diffcomp.backbone)
    assert found.space == "clip" and not writer.inputs
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)


def test_without_descriptions_it_infers_them_itself(family, writer, images, workspace):
    found = family.answer(QUERIES, images)["cirevl"]
    assert len(writer.inputs) == 3 and all("with a hat" in one.text for one in writer.inputs)
    assert found.descriptions == [["a dog number 0"], ["a dog number 20"], ["a dog number 0"]]
    expected = encoded([texts[0] for texts in found.descriptions], workspace.diffcomp.backbone)
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)


def test_with_one_every_caption_is_edited_once_a_query(family, writer, images, workspace):
    workspace.retrieve.edit_prompt = "{caption}; {modification}"
    found = family.answer(QUERIES, images, descriptions=DESCRIPTIONS)["cirevl"]
    assert [texts for (texts,) in found.descriptions] == [
        "A DOG NUMBER 0; WITH A HAT",
        "A DOG NUMBER 20; WITH A HAT",
        "A DOG NUMBER 0; WITH A HAT",
    ]
    assert [one.text for one in writer.inputs if one.image] == ["Describe the image."] * 2  # an image is captioned once


def test_a_negative_text_turns_the_vectors(family, images):
    plain, negated = (
        family.answer(QUERIES, images, controls, descriptions=DESCRIPTIONS)["cirevl"].vectors
        for controls in (Controls(), Controls(negative="a dog"))
    )
    assert not np.allclose(plain, negated, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(negated, axis=-1), 1.0, rtol=1e-5)


def test_only_a_missing_concept_is_read_off_the_caption(family, writer, images):
    queries = [QUERIES[0], Query("own", "red cat", ("x",), ("y",), shared_concept="a cat")]
    named = with_shared_concepts(queries, images, family._models.describer)
    assert [query.shared_concept for query in named] == ["dog number", "a cat"] and len(writer.inputs) == 1
    assert [query.query_id for query in named] == ["q0", "own"]
