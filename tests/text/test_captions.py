"""Generated captions beside the given ones, and which of them a pair takes."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.artifacts import ShardSet, ShardWriter, schemas, write_table
from pipeline.config import DiffCompDataParams, PriorDataParams
from pipeline.text.captions import (
    CaptionError,
    captions_by_image,
    in_share,
    lacks_caption,
    merged_rows,
    share_of,
    takes_long,
    training_kinds,
    write_texts,
)
from tests.sections import section


class LastWords:
    """Stands in for the parser: a text's phrase is its last word."""

    def __init__(self):
        self.asked = []

    def phrases(self, texts):
        self.asked += texts
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


def test_only_the_rows_that_need_phrases_are_parsed_and_a_run_that_broke_off_goes_on(tmp_path):
    def rows(broken=False):
        for number in range(10):
            if broken and number == 7:
                raise KeyboardInterrupt
            yield pair(f"i{number}", "short", f"shade {number}")

    def writer():
        return ShardWriter(tmp_path / "texts", schemas.PAIRS, {}, rows_per_shard=3, resume=True)

    first, second = LastWords(), LastWords()
    with pytest.raises(KeyboardInterrupt):
        write_texts(rows(broken=True), writer(), first, lambda row: row["image_id"] != "i1")
    manifest = write_texts(rows(), writer(), second, lambda row: row["image_id"] != "i1")
    assert first.asked == [f"shade {number}" for number in (0, 2, 3, 4, 5)]
    assert second.asked == [f"shade {number}" for number in (6, 7, 8, 9)]
    written = ShardSet.open(tmp_path / "texts").table().to_pylist()
    assert manifest.rows == 10 and [row["phrases"] for row in written[:3]] == [["0"], [], ["2"]]


def test_a_share_of_the_short_captions_of_some_sources_is_chosen_by_id_and_seed(tmp_path):
    rows = [pair(f"{source}/{number}", "short", "x") for source in ("cc3m", "sa1b") for number in range(2000)]
    rows[0]["caption_kind"] = "long"

    def chosen(**values):
        data = section(DiffCompDataParams, **({"sources": ["cc3m"], "share": 0.1, "seed": 0} | values))
        return [row["pair_id"] for row in rows if in_share(row, data)]

    assert len(chosen(share=1.0)) == 1999 and len(chosen(share=1.0, sources=[])) == 3999
    assert 150 < len(chosen()) < 250 and chosen() != chosen(seed=1)
    assert set(chosen()) < set(chosen(share=0.5)), "a larger share holds the smaller one"
    write_table(tmp_path / "texts", pa.Table.from_pylist(rows, schemas.PAIRS), {}, rows_per_shard=700)
    found = share_of(ShardSet.open(tmp_path / "texts"), section(DiffCompDataParams, sources=[], share=0.1, seed=3))
    assert [row["pair_id"] for row in found] == chosen(sources=[], seed=3)


def test_a_generated_caption_out_of_order_is_an_error_naming_it():
    images = [(f"i{n}", {"short": [pair(f"i{n}", "short", "fine")]}) for n in range(3)]
    with pytest.raises(CaptionError, match="'i0/long'.*is not among"):
        list(merged_rows(images, [pair("i1", "long", "one"), pair("i0", "long", "none")]))


def test_chosen_images_get_a_generated_long_caption_before_their_given_short_one(tmp_path):
    generated = [pair("i1", "long", "an image of grey 1")]
    rows = list(merged_rows(captions_by_image(pairs_table(tmp_path)), generated))
    assert [row["pair_id"] for row in rows] == ["i0/short", "i1/long", "i1/short", "i2/short", "i3/short", "i4/short"]
    assert rows[1:3] == [generated[0], pair("i1", "short", "shade 1")]


def test_an_empty_short_caption_is_an_error_naming_the_row(tmp_path):
    pairs = pairs_table(tmp_path, short=lambda n: " " if n == 3 else "fine")
    with pytest.raises(CaptionError, match="i3/short.*empty"):
        list(merged_rows(captions_by_image(pairs), []))


def test_a_pair_that_came_without_a_caption_has_the_generated_one_alone(tmp_path):
    pairs = pairs_table(tmp_path, short=lambda n: "" if n == 3 else "fine")
    assert [image_id for image_id, found in captions_by_image(pairs) if lacks_caption(found)] == ["i3"]
    long = pair("i3", "long", "written by the model")
    rows = list(merged_rows(captions_by_image(pairs), [long]))
    assert [row["pair_id"] for row in rows] == ["i0/short", "i1/short", "i2/short", "i3/long", "i4/short"]


def test_several_captions_are_kept_and_empty_ones_among_them_left_out(tmp_path):
    rows = [pair("i0", "short", "one"), pair("i0", "short", " "), pair("i0", "short", "three"), pair("i1", "short", "")]
    rows = [{**row, "pair_id": f"{row['pair_id']}/{number}"} for number, row in enumerate(rows)]
    write_table(tmp_path / "pairs", pa.Table.from_pylist(rows, schemas.PAIRS), {})
    images = list(captions_by_image(ShardSet.open(tmp_path / "pairs")))
    assert [lacks_caption(found) for _, found in images] == [False, True]
    generated = [pair("i1", "long", "written by the model")]
    merged = list(merged_rows(images, generated))
    assert [row["caption"] for row in merged] == ["one", "three", "written by the model"]


def test_a_missing_short_caption_is_an_error_naming_the_image():
    with pytest.raises(CaptionError, match="'i7'.*no short caption"):
        list(merged_rows([("i7", {})], []))


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
    everything = section(PriorDataParams)
    assert training_kinds("cc12m/1", {"short"}, everything) == ["short"]
    assert training_kinds("cc12m/1", {"short", "long"}, everything) == ["long"]
    assert training_kinds("plain", {"long"}, everything) == ["long"]


def test_a_share_of_some_sources_trains_with_the_short_caption_as_well():
    data = section(PriorDataParams, sources=["cc12m", "sa1b"], short_sources=["cc12m"], short_share=0.4, seed=1)
    ids, both = [f"cc12m/{n}" for n in range(4000)], {"short", "long"}
    chosen = [training_kinds(image_id, both, data) for image_id in ids]
    assert set(map(tuple, chosen)) == {("long",), ("long", "short")}
    assert 0.37 < chosen.count(["long", "short"]) / 4000 < 0.43
    assert [training_kinds(image_id, both, replace(data, seed=2)) for image_id in ids] != chosen
    larger = [training_kinds(image_id, both, replace(data, short_share=0.7)) for image_id in ids]
    assert all(len(few) <= len(many) for few, many in zip(chosen, larger, strict=True)), "it holds the smaller one"
    assert all(training_kinds(f"sa1b/{n}", both, data) == ["long"] for n in range(100))
    assert all(training_kinds(image_id, {"long"}, data) == ["long"] for image_id in ids)
    assert all(training_kinds(image_id, {"short"}, data) == ["short"] for image_id in ids)
    assert training_kinds("cc3m/1", both, data) == [], "it is no source of Stage 1's"
