"""CIReVL, shared concepts from captions, and queries with several wordings."""

import numpy as np
import pytest

from pipeline.config import Params
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.image_source import ImageTable
from pipeline.query.cirevl import CirevlQueries, ReferenceCaptions, answers_of
from pipeline.query.methods import QueryVectors
from pipeline.retrieval import Query
from tests.stages.conftest import DIM

REFERENCES = ("red ball", "red cat", "red ball")
QUERIES = [
    Query(f"q{number}", reference, ("with a hat",), ("blue cat",)) for number, reference in enumerate(REFERENCES)
]


class Writer:
    """Captions what it sees by its colour, and answers a text with that text's words in capitals."""

    def __init__(self):
        self.inputs = []

    def generate(self, inputs, max_new_tokens, sequences=1):
        self.inputs += inputs
        return [[f"a dog number {one.image.getpixel((0, 0))[0]}" if one.image else one.text.upper()] for one in inputs]


def cirevl(params: Params, writer: Writer) -> CirevlQueries:
    descriptions = {"q0": ["a ball with a hat", "ignored"], "q1": ["a cat with a hat"], "q2": ["with a hat"]}
    backbone = load_dual_encoder(params.diffcomp.backbone)
    return CirevlQueries(params, ReferenceCaptions(params, writer), descriptions, backbone, {"of": "clip"})


def test_without_an_edit_prompt_the_described_target_is_the_text(workspace):
    writer, pictures = Writer(), ImageTable("data/pairs/images")
    family = cirevl(workspace, writer)
    found = family.vectors(QUERIES, pictures)["cirevl"]
    encoder = family.backbone
    expected = (
        encoder.encode_text(encoder.tokenize(["a ball with a hat", "a cat with a hat", "with a hat"])).detach().numpy()
    )
    assert found.space == "clip" and not writer.inputs
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)


def test_with_one_every_caption_is_edited_once_a_query(workspace):
    workspace.retrieve.edit_prompt = "{caption}; {modification}"
    writer, pictures = Writer(), ImageTable("data/pairs/images")
    texts = cirevl(workspace, writer).target_texts(QUERIES, pictures)
    assert texts == ["A DOG NUMBER 0; WITH A HAT", "A DOG NUMBER 20; WITH A HAT", "A DOG NUMBER 0; WITH A HAT"]
    assert [one.text for one in writer.inputs if one.image] == ["Describe the image."] * 2  # an image is captioned once


def test_only_a_missing_concept_is_read_off_the_caption(workspace):
    pictures, queries = (
        ImageTable("data/pairs/images"),
        [QUERIES[0], Query("own", "red cat", ("x",), ("y",), shared_concept="a cat")],
    )
    writer = Writer()
    named = ReferenceCaptions(workspace, writer).with_concepts(queries, pictures)
    assert [query.shared_concept for query in named] == ["dog number", "a cat"] and len(writer.inputs) == 1
    assert [query.query_id for query in named] == ["q0", "own"]


class Counting:
    """One vector a query, or two: the length of the wording along its own axis."""

    spaces = {"fused": {}}

    def __init__(self, method, hypotheses):
        self.method, self.hypotheses, self.asked = method, hypotheses, []

    def vectors(self, queries, pictures):
        self.asked.append([query.text for query in queries])
        vectors = np.array([[len(query.text)] * DIM for query in queries], np.float32)
        return {
            self.method: QueryVectors(
                "fused", vectors if self.hypotheses == 1 else np.stack([vectors, -vectors], axis=1)
            )
        }


@pytest.mark.parametrize("hypotheses", [1, 2])
def test_wordings_are_hypotheses_of_one_query(hypotheses):
    query = Query("q", "r", ("a and b",), ("t",), alternatives=("bb and a",))
    families = [Counting("one", hypotheses), Counting("other", hypotheses)]
    found = {method: (family, one) for family, method, one in answers_of(families, [query], None)}
    assert families[0].asked == [["bb and a"], ["a and b"]] and found["other"][0] is families[1]
    lengths = [8, 7] if hypotheses == 1 else [8, -8, 7, -7]
    assert found["one"][1].vectors[0, :, 0].tolist() == lengths
    plain = Query("q", "r", ("a and b",), ("t",))
    assert next(answers_of([Counting("one", 1)], [plain], None))[2].vectors.shape == (1, DIM)
