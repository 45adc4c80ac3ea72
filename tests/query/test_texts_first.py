"""All texts are inferred before anything is embedded, so that two large models take turns on one GPU only once."""

import dataclasses
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import schemas, write_table
from pipeline.encoders.image_source import ImageTable, InMemoryImages
from pipeline.query.cirevl_family import Cirevl
from pipeline.query.describer import Describer
from pipeline.query.driver import answer_all, infer_all_texts
from pipeline.query.fusion_diff_family import FusionDiff
from pipeline.retrieval.queries import Query
from tests.query.conftest import FakeMllm, fake_models

QUERIES = [
    Query("1", "a", ("red",), ("t",), alternatives=("in red",)),
    Query("2", "b", ("blue",), ("t",), alternatives=("in blue",)),
    Query("3", "a", ("green",), ("t",), alternatives=("in green",)),
]


@pytest.fixture
def images(tmp_path):
    rows = []
    for image_id, colour in (("a", "white"), ("b", "black")):
        content = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(content, "PNG")
        rows.append({"image_id": image_id, "bytes": content.getvalue(), "width": 8, "height": 8})
    write_table(tmp_path / "images", pa.Table.from_pylist(rows, schemas.IMAGES), {})
    return ImageTable(tmp_path / "images")


class Noting(FakeMllm):
    """Notes which of two models is asked, and answers in words of the input."""

    def __init__(self, name, asked):
        self.name, self.asked = name, asked

    def embed(self, inputs):
        self.asked.append(self.name)
        return super().embed(inputs)

    def generate(self, inputs, max_new_tokens, sequences=1):
        self.asked.append(self.name)
        return [[f"{number} of {one.text}" for number in range(sequences)] for one in inputs]


@pytest.mark.parametrize("prompt", ["", "{caption}, but {modification}"])
def test_the_describer_is_asked_first_and_the_answers_stay(workspace, images, prompt):
    params = dataclasses.replace(workspace, retrieve=dataclasses.replace(workspace.retrieve, edit_prompt=prompt))
    asked, found = [], []
    for keeps in (False, True):
        models = fake_models(params)
        models.embedder, models.writer = Noting("embedder", asked), Noting("describer", asked)
        models.describer.keeps_texts = keeps
        families = [FusionDiff(models, {}), Cirevl(models)]
        asked.clear()
        if keeps:
            infer_all_texts(families, QUERIES, images)
            assert set(asked) == {"describer"}
            asked.clear()
        found.append(answer_all(families, QUERIES, images))
        assert set(asked) == ({"embedder"} if keeps else {"embedder", "describer"})
    alone, texts_first = found
    assert list(alone) == list(texts_first)
    for method, answer in alone.items():
        assert texts_first[method].descriptions == answer.descriptions
        np.testing.assert_array_equal(texts_first[method].vectors, answer.vectors)


def test_images_outside_a_table_are_never_mixed_up(workspace):
    describer, query = Describer(workspace, lambda: Noting("describer", [])), Query("q", "own", ("red",), ())
    describer.keeps_texts = True
    texts = []
    for colour in ("white", "black"):
        mllm = Seen()
        describer._open_mllm = lambda mllm=mllm: mllm
        texts.append(describer.targets([query], InMemoryImages({"own": Image.new("RGB", (4, 4), colour)})))
    assert texts[0] != texts[1]


class Seen(FakeMllm):
    def generate(self, inputs, max_new_tokens, sequences=1):
        return [[str(one.image.getpixel((0, 0)))] * sequences for one in inputs]
