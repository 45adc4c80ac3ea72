"""A reference is reduced as the gallery's job reduces the same image, so that equal images have equal vectors."""

import dataclasses
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import schemas, write_table
from pipeline.encoders.embedding.rows import EncoderRow, decode
from pipeline.encoders.image_source import ImageTable
from pipeline.query.describer import Describer
from pipeline.query.fusion_diff_family import FusionDiff
from pipeline.retrieval.queries import Query
from tests.query.conftest import FakeMllm, fake_models

SIDE = 40


@pytest.fixture
def photograph():
    """A JPEG whose decoder can reduce it, upright by its EXIF orientation."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((400, 600), Image.Resampling.BICUBIC)
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    image.save(content, "JPEG", exif=exif)
    return content.getvalue()


@pytest.fixture
def images(tmp_path, photograph):
    rows = [{"image_id": "a", "bytes": photograph, "width": 600, "height": 400}]
    write_table(tmp_path / "images", pa.Table.from_pylist(rows, schemas.IMAGES), {})
    return ImageTable(tmp_path / "images")


class Seeing(FakeMllm):
    """Keeps what it is shown."""

    def __init__(self):
        self.seen = []

    def embed(self, inputs):
        self.seen += [one.image for one in inputs]
        return super().embed(inputs)

    def generate(self, inputs, max_new_tokens, sequences=1):
        self.seen += [one.image for one in inputs]
        return super().generate(inputs, max_new_tokens, sequences)


def test_fused_and_described_references(workspace, images, photograph):
    params = dataclasses.replace(
        workspace,
        embedder=dataclasses.replace(workspace.embedder, max_side=SIDE),
        describer=dataclasses.replace(workspace.describer, max_side=SIDE),
    )
    job = decode(EncoderRow("a", "red", photograph), SIDE).image
    assert job.size == (SIDE, 27)
    models, mllm = fake_models(params), Seeing()
    models.embedder = mllm
    query = Query("q", "a", ("red",), ())
    FusionDiff(models, {}).fuse([query], images)
    describer = Describer(params, lambda: mllm)
    describer.targets([query], images)
    describer.captions([query], images)
    assert len(mllm.seen) == 3
    for image in mllm.seen:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(job))
