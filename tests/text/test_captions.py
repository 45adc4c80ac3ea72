"""Generated captions beside the given ones, and which of them a pair takes."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.artifacts import ShardSet, schemas, write_table
from pipeline.config import EncoderParams
from pipeline.encoders.embedding.captioning import captioning_job, captioning_rows
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.readers import PairReader, training_row
from pipeline.encoders.embedding.rows import EncodingError
from pipeline.text.captions import CaptionError, captions_by_image, lacks_caption, merge_captions, takes_long

PARAMS = EncoderParams(max_new_tokens=7)
OPTIONS = JobOptions(2, rows_per_shard=3)


class Writer:
    """Stands in for f_M: names the grey of an image; `silent` is the grey it says nothing of."""

    def __init__(self, silent: int = -1):
        self.silent, self.calls = silent, []

    def generate(self, inputs, max_new_tokens, sequences=1):
        assert max_new_tokens == 7 and all(one.text == PARAMS.caption_prompt for one in inputs)
        self.calls.append(len(inputs))
        greys = [int(np.array(one.image)[0, 0, 0]) for one in inputs]
        return [["" if grey == self.silent else f"an image of grey {grey}"] for grey in greys]


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
    return PairReader(ShardSet.open(folder / "images"), ShardSet.open(folder / "pairs"), captioning_rows(PARAMS))


def test_chosen_images_get_a_generated_long_caption_before_their_given_short_one(tmp_path):
    writer, reader = Writer(), tables(tmp_path)
    run_job(reader, captioning_job(writer, PARAMS), tmp_path / "generated", {}, OPTIONS)
    assert writer.calls == [2, 1, 2]
    generated = ShardSet.open(tmp_path / "generated").table().to_pylist()
    rows = merge_captions(captions_by_image(ShardSet.open(tmp_path / "pairs")), generated[1:2], Words()).to_pylist()
    assert [row["pair_id"] for row in rows] == ["i0/short", "i1/long", "i1/short", "i2/short", "i3/short", "i4/short"]
    assert rows[1:3] == [
        {
            "pair_id": "i1/long",
            "image_id": "i1",
            "caption": "an image of grey 1",
            "caption_kind": "long",
            "phrases": ["1"],
        },
        {"pair_id": "i1/short", "image_id": "i1", "caption": "shade 1", "caption_kind": "short", "phrases": ["1"]},
    ]


def test_captioning_resumes_to_the_same_bytes(tmp_path):
    reader, job = tables(tmp_path), captioning_job(Writer(), PARAMS)
    run_job(reader, job, tmp_path / "whole", {}, OPTIONS)
    with pytest.raises(EncodingError, match="row 'i4/long': the generated caption is empty"):
        run_job(reader, captioning_job(Writer(silent=4), PARAMS), tmp_path / "cut", {}, OPTIONS)
    again = Writer()
    run_job(reader, captioning_job(again, PARAMS), tmp_path / "cut", {}, OPTIONS)
    assert again.calls == [2]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


def test_an_empty_short_caption_is_an_error_naming_the_row(tmp_path):
    tables(tmp_path, short=lambda n: " " if n == 3 else "fine")
    with pytest.raises(CaptionError, match="i3/short.*empty"):
        merge_captions(captions_by_image(ShardSet.open(tmp_path / "pairs")), [], Words())


def test_a_pair_that_came_without_a_caption_has_the_generated_one_alone(tmp_path):
    tables(tmp_path, short=lambda n: "" if n == 3 else "fine")
    pairs = ShardSet.open(tmp_path / "pairs")
    assert [image_id for image_id, found in captions_by_image(pairs) if lacks_caption(found)] == ["i3"]
    long = {
        "pair_id": "i3/long",
        "image_id": "i3",
        "caption": "written by the model",
        "caption_kind": "long",
        "phrases": [],
    }
    rows = merge_captions(captions_by_image(pairs), [long], Words()).to_pylist()
    assert [row["pair_id"] for row in rows] == ["i0/short", "i1/short", "i2/short", "i3/long", "i4/short"]


def test_a_missing_short_caption_is_an_error_naming_the_image():
    with pytest.raises(CaptionError, match="'i7'.*no short caption"):
        merge_captions([("i7", {})], [], Words())


def test_the_choice_of_images_has_the_asked_share_and_does_not_change():
    ids = [f"i{n}" for n in range(4000)]
    chosen = [takes_long(image_id, 0.85, seed=0) for image_id in ids]
    assert 0.83 < sum(chosen) / 4000 < 0.87
    assert chosen == [takes_long(image_id, 0.85, seed=0) for image_id in ids]
    assert chosen != [takes_long(image_id, 0.85, seed=1) for image_id in ids]
    assert not any(takes_long(image_id, 0.0, 0) for image_id in ids) and all(
        takes_long(image_id, 1.0, 0) for image_id in ids
    )


def test_an_image_trains_with_its_long_caption_where_it_has_one():
    short, long = ({"pair_id": kind, "caption": f"a {kind} caption"} for kind in ("short", "long"))
    assert training_row("i", {"short": short}).text == "a short caption"
    assert training_row("i", {"short": short, "long": long}).id == "long"
