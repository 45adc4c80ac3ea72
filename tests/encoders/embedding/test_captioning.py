"""The captioning job: which rows it asks for, and resuming to the same bytes."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import ShardSet, schemas, write_table
from pipeline.config import CaptionerParams
from pipeline.encoders.embedding.captioning import captioning_job, captioning_rows
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.readers import PairReader
from pipeline.encoders.embedding.rows import EncodingError
from tests.sections import section

PARAMS = section(CaptionerParams, max_new_tokens=7)
OPTIONS = JobOptions(2, rows_per_shard=3)


class GreyWriter:
    """Stands in for f_M: names the grey of an image; `silent` is the grey it says nothing of."""

    def __init__(self, silent: int = -1):
        self.silent, self.calls = silent, []

    def generate(self, inputs, max_new_tokens, sequences=1):
        assert max_new_tokens == 7 and all(one.text == PARAMS.caption_prompt for one in inputs)
        self.calls.append(len(inputs))
        greys = [int(np.array(one.image)[0, 0, 0]) for one in inputs]
        return [["" if grey == self.silent else f"an image of grey {grey}"] for grey in greys]


@pytest.fixture
def reader(make, tmp_path):
    """Five images i0..i4, the n-th of grey n."""
    images = []
    for number in range(5):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (number,) * 3).save(buffer, "PNG")
        images.append({"image_id": f"i{number}", "bytes": buffer.getvalue(), "width": 8, "height": 8})
    write_table(tmp_path / "images", pa.Table.from_pylist(images, schemas.IMAGES), {})
    pairs = make.pairs(tmp_path / "pairs", [row["image_id"] for row in images])
    return PairReader(ShardSet.open(tmp_path / "images"), pairs, captioning_rows(PARAMS))


def test_every_image_gets_the_caption_that_the_model_writes(reader, tmp_path):
    writer = GreyWriter()
    run_job(reader, captioning_job(writer, PARAMS), tmp_path / "generated", {}, OPTIONS)
    assert writer.calls == [2, 1, 2], "a shard's end ends a batch"
    assert ShardSet.open(tmp_path / "generated").table().to_pylist() == [
        {
            "pair_id": f"i{number}/long",
            "image_id": f"i{number}",
            "caption": f"an image of grey {number}",
            "caption_kind": "long",
            "phrases": [],
        }
        for number in range(5)
    ]


def test_captioning_resumes_to_the_same_bytes(reader, tmp_path):
    run_job(reader, captioning_job(GreyWriter(), PARAMS), tmp_path / "whole", {}, OPTIONS)
    with pytest.raises(EncodingError, match="row 'i4/long': the generated caption is empty"):
        run_job(reader, captioning_job(GreyWriter(silent=4), PARAMS), tmp_path / "cut", {}, OPTIONS)
    again = GreyWriter()
    run_job(reader, captioning_job(again, PARAMS), tmp_path / "cut", {}, OPTIONS)
    assert again.calls == [2]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()
