"""Generated captions beside the given ones, and which of them a pair takes."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.artifacts import ShardSet, schemas, write_table
from pipeline.text.captions import (
    CaptionError,
    captions_by_image,
    lacks_caption,
    merge_captions,
    takes_long,
    training_pairs,
)


class LastWords:
    """Stands in for the parser: a text's phrase is its last word."""

    def phrases(self, texts):
        return [text.split()[-1:] for text in texts]


def pair(image_id, kind, caption):
    return {
        "pair_id": f"{image_id}/{kind}",
        "image_id": image_id,
        "caption": caption,
        "caption_kind": kind,
        "phrases": [],
    }


def pairs_table(folder, short=lambda n: f"shade {n}"):
    """Five images, each with a given long and a given short caption."""
    rows = [
        pair(f"i{number}", kind, caption)
        for number in range(5)
        for kind, caption in (("long", "given, but not used"), ("short", short(number)))
    ]
    write_table(folder / "pairs", pa.Table.from_pylist(rows, schemas.PAIRS), {})
    return ShardSet.open(folder / "pairs")


def test_chosen_images_get_a_generated_long_caption_before_their_given_short_one(tmp_path):
    generated = [pair("i1", "long", "an image of grey 1")]
    rows = merge_captions(captions_by_image(pairs_table(tmp_path)), generated, LastWords()).to_pylist()
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


def test_an_empty_short_caption_is_an_error_naming_the_row(tmp_path):
    pairs = pairs_table(tmp_path, short=lambda n: " " if n == 3 else "fine")
    with pytest.raises(CaptionError, match="i3/short.*empty"):
        merge_captions(captions_by_image(pairs), [], LastWords())


def test_a_pair_that_came_without_a_caption_has_the_generated_one_alone(tmp_path):
    pairs = pairs_table(tmp_path, short=lambda n: "" if n == 3 else "fine")
    assert [image_id for image_id, found in captions_by_image(pairs) if lacks_caption(found)] == ["i3"]
    long = pair("i3", "long", "written by the model")
    rows = merge_captions(captions_by_image(pairs), [long], LastWords()).to_pylist()
    assert [row["pair_id"] for row in rows] == ["i0/short", "i1/short", "i2/short", "i3/long", "i4/short"]


def test_several_captions_are_kept_and_empty_ones_among_them_left_out(tmp_path):
    rows = [pair("i0", "short", "one"), pair("i0", "short", " "), pair("i0", "short", "three"), pair("i1", "short", "")]
    rows = [{**row, "pair_id": f"{row['pair_id']}/{number}"} for number, row in enumerate(rows)]
    write_table(tmp_path / "pairs", pa.Table.from_pylist(rows, schemas.PAIRS), {})
    images = list(captions_by_image(ShardSet.open(tmp_path / "pairs")))
    assert [lacks_caption(found) for _, found in images] == [False, True]
    generated = [pair("i1", "long", "written by the model")]
    merged = merge_captions(images, generated, LastWords()).to_pylist()
    assert [row["caption"] for row in merged] == ["one", "three", "written by the model"]


def test_a_missing_short_caption_is_an_error_naming_the_image():
    with pytest.raises(CaptionError, match="'i7'.*no short caption"):
        merge_captions([("i7", {})], [], LastWords())


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
    assert training_pairs({"short": [short]}) == [short]
    assert training_pairs({"short": [short, short], "long": [long]}) == [long]
    assert training_pairs({"short": [short, long]}) == [short, long], "several captions are several pairs"
