"""Generated captions beside the given ones, and which of them a pair takes."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import ShardSet, schemas, write_table
from pipeline.config import EncoderParams
from pipeline.encoders.job import EncodingError, run_job
from pipeline.encoders.readers import PairReader
from pipeline.text.captions import caption_job, captioning, one_caption

PARAMS = EncoderParams(max_new_tokens=7)


class Writer:
    """Stands in for f_M: names the grey of a picture; `silent` is the grey it says nothing of."""

    def __init__(self, silent: int = -1):
        self.silent, self.calls = silent, []

    def generate(self, inputs, max_new_tokens, sequences=1):
        assert max_new_tokens == 7 and all(one.text == PARAMS.caption_prompt for one in inputs)
        self.calls.append(len(inputs))
        greys = [int(np.array(one.image)[0, 0, 0]) for one in inputs]
        return [["" if grey == self.silent else f"a picture of grey {grey}"] for grey in greys]


class Words:
    """Stands in for the parser."""

    def phrases(self, texts):
        return [text.split()[-1:] for text in texts]


def tables(folder, short=lambda n: f"shade {n}"):
    images, pairs = [], []
    for number in range(5):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (number,) * 3).save(buffer, "PNG")
        images.append({"image_id": f"i{number}", "bytes": buffer.getvalue(), "width": 8, "height": 8})
        for kind, caption in (("long", "given, but not used"), ("short", short(number))):
            pair = {"pair_id": f"i{number}/{kind}", "image_id": f"i{number}", "caption": caption}
            pairs.append({**pair, "caption_kind": kind, "phrases": []})
    write_table(folder / "images", pa.Table.from_pylist(images, schemas.IMAGES), {})
    write_table(folder / "pairs", pa.Table.from_pylist(pairs, schemas.PAIRS), {})
    return PairReader(ShardSet.open(folder / "images"), ShardSet.open(folder / "pairs"), captioning(PARAMS))


def test_every_image_gets_a_generated_long_and_its_given_short_caption(tmp_path):
    writer = Writer()
    run_job(tables(tmp_path), caption_job(writer, PARAMS, Words()), tmp_path / "texts", {}, batch_size=2, rows_per_shard=3)
    rows = ShardSet.open(tmp_path / "texts").table().to_pylist()
    assert [shard.rows for shard in ShardSet.open(tmp_path / "texts").manifest.shards] == [6, 4]
    assert writer.calls == [2, 1, 2]
    assert rows[2:4] == [
        {"pair_id": "i1/long", "image_id": "i1", "caption": "a picture of grey 1", "caption_kind": "long", "phrases": ["1"]},
        {"pair_id": "i1/short", "image_id": "i1", "caption": "shade 1", "caption_kind": "short", "phrases": ["1"]},
    ]


def test_captioning_resumes_to_the_same_bytes(tmp_path):
    reader, job = tables(tmp_path), caption_job(Writer(), PARAMS, Words())
    run_job(reader, job, tmp_path / "whole", {}, batch_size=2, rows_per_shard=3)
    with pytest.raises(EncodingError, match="row 'i4/long': the generated caption is empty"):
        run_job(reader, caption_job(Writer(silent=4), PARAMS, Words()), tmp_path / "cut", {}, batch_size=2, rows_per_shard=3)
    again = Writer()
    run_job(reader, caption_job(again, PARAMS, Words()), tmp_path / "cut", {}, batch_size=2, rows_per_shard=3)
    assert again.calls == [2]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


def test_an_empty_short_caption_is_an_error_naming_the_row(tmp_path):
    reader = tables(tmp_path, short=lambda n: " " if n == 3 else "fine")
    with pytest.raises(EncodingError, match="i3/short.*empty"):
        list(reader.rows(0))


def test_the_choice_of_caption_has_the_asked_share_and_does_not_change():
    captions = {kind: {"pair_id": kind, "caption": kind} for kind in ("long", "short")}
    chosen = [one_caption(0.85, seed=0)(f"i{n}", captions).id for n in range(4000)]
    assert 0.83 < chosen.count("long") / 4000 < 0.87
    assert chosen == [one_caption(0.85, seed=0)(f"i{n}", captions).id for n in range(4000)]
    assert chosen != [one_caption(0.85, seed=1)(f"i{n}", captions).id for n in range(4000)]
    for share, kind in ((0.0, "short"), (1.0, "long")):
        assert {one_caption(share, seed=0)(f"i{n}", captions).id for n in range(50)} == {kind}


def test_a_caption_that_is_not_there_is_an_error_naming_the_image():
    with pytest.raises(EncodingError, match="image 'i0': there is no long caption"):
        one_caption(1.0, seed=0)("i0", {})
