"""Readers: images joined with captions and triplets, in order and shard by shard."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts import ArtifactError, ShardSet, schemas, write_table
from pipeline.config import PriorDataParams
from pipeline.encoders.embedding.readers import (
    ImageReader,
    ImageStore,
    PairChoice,
    PairReader,
    TripletReader,
    training_rows,
    triplet_images,
)
from pipeline.encoders.embedding.rows import EncoderRow
from tests.encoders.conftest import Make
from tests.sections import section

IDS = ["a", "b", "c", "d", "e"]


long_caption = PairChoice(
    lambda image_id, captions: [EncoderRow(row["pair_id"], row["caption"]) for row in captions["long"]],
    lambda image_id, kinds: kinds["long"],
)


@pytest.fixture
def images(make, tmp_path) -> ShardSet:
    return make.images(tmp_path / "images", IDS, rows_per_shard=2)


@pytest.fixture
def triplets(tmp_path) -> ShardSet:
    rows = [
        {
            "triplet_id": f"{reference}{target}",
            "reference_id": reference,
            "target_id": target,
            "instruction": f"to {target}",
            "target_description": f"this is {target}",
            "shared_concept": "x",
        }
        for reference, target in ("ae", "ea", "bc", "cb")
    ]
    write_table(tmp_path / "triplets", pa.Table.from_pylist(rows, schemas.TRIPLETS), {})
    return ShardSet.open(tmp_path / "triplets")


def test_pairs_meet_their_images_from_any_row_on(make, images, tmp_path):
    reader = PairReader(images, make.pairs(tmp_path / "pairs", ["a", "c", "d", "e"]), long_caption)
    rows = list(reader.rows(0))
    assert len(reader) == 4
    assert rows[1] == EncoderRow("c/long", "the long caption of c", make.png(2), "c")
    for start in range(5):
        assert list(reader.rows(start)) == rows[start:]


@pytest.mark.parametrize("skip", [set(), {"c"}, {"a", "d"}])
@pytest.mark.parametrize("rows_per_shard", [1, 2, 3, 4, 10])
def test_a_start_in_any_shard_finds_the_rows_that_reading_from_the_front_finds(make, tmp_path, skip, rows_per_shard):
    """An image's captions may lie in two shards; a reader is asked again and again, as workers do."""
    images = make.images(tmp_path / "many", [*"abcdefgh"], rows_per_shard=3)
    table = make.pairs(tmp_path / "pairs", [*"acdefh"]).table()
    write_table(tmp_path / "cut", table, {}, rows_per_shard)
    kept = [image_id for image_id in "acdefh" if image_id not in skip]
    for source in (images, None):
        reader = PairReader(source, ShardSet.open(tmp_path / "cut"), long_caption, skip)
        for start in (4, 0, 3, 5, 1, 2):
            found = [(row.image_id, row.text, row.image) for row in reader.rows(start)]
            expected = [
                (one, f"the long caption of {one}", make.png("abcdefgh".index(one)) if source else None)
                for one in kept[start:]
            ]
            assert found == expected


def test_a_gallery_starts_in_any_shard(make, tmp_path):
    reader = ImageReader(make.images(tmp_path / "many", [*"abcdefgh"], rows_per_shard=3))
    for start in range(9):
        assert [row.image_id for row in reader.rows(start)] == [*"abcdefgh"][start:]


def test_skipped_images_have_no_row_with_or_without_images(make, images, tmp_path):
    pairs = make.pairs(tmp_path / "pairs", IDS)
    for stream in (images, None):
        reader = PairReader(stream, pairs, long_caption, skip={"b"})
        assert len(reader) == 4 and [row.image_id for row in reader.rows(0)] == ["a", "c", "d", "e"]


@pytest.mark.parametrize("order", [["b", "a"], ["a", "z"]])
def test_pairs_out_of_order_or_without_an_image_are_an_error(make, images, tmp_path, order):
    with pytest.raises(ArtifactError, match=f"'{order[1]}/long' is of image '{order[1]}'"):
        list(PairReader(images, make.pairs(tmp_path / "pairs", order), long_caption).rows(0))


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    with_long=st.lists(st.booleans(), min_size=6, max_size=6),
    skip=st.sets(st.sampled_from("abcdef"), max_size=3),
    learned=st.tuples(*[st.sets(st.sampled_from("abcdef"), max_size=3)] * 2),
    rows_per_shard=st.integers(1, 7),
)
def test_several_captions_are_several_rows_from_any_row_on(
    tmp_path_factory, counts, with_long, skip, learned, rows_per_shard
):
    """A long caption takes the place of the short ones, or stands beside them. An image's may fill several shards."""
    folder, make = tmp_path_factory.mktemp("several"), Make()
    images = make.images(folder / "images", [*"abcdef"], rows_per_shard=2)
    pairs, expected = [], []
    for number, count in enumerate(counts):
        name = "abcdef"[number]
        kinds = ["long"] * with_long[number] + ["short"] * count
        ids = [f"{name}/{kind}/{place}" for place, kind in enumerate(kinds)]
        pairs += [
            {"pair_id": one, "image_id": name, "caption": f"it is {one}", "caption_kind": kind, "phrases": []}
            for one, kind in zip(ids, kinds, strict=True)
        ]
        chosen = ids[:1] if with_long[number] and name not in learned[1] else ids
        taken = name not in skip and (not learned[0] or name in learned[0])
        expected += [(one, f"it is {one}", make.png(number), name) for one in chosen if taken]
    write_table(folder / "pairs", pa.Table.from_pylist(pairs, schemas.PAIRS), {}, rows_per_shard)
    # A source is what stands before the first slash of an image's id: here, the whole id.
    data = replace(section(PriorDataParams), short_share=1.0)
    data.sources, data.short_sources = map(sorted, learned)
    reader = PairReader(images, ShardSet.open(folder / "pairs"), training_rows(data), skip)
    assert len(reader) == len(expected)
    for start in (0, *range(len(expected), -1, -1)):
        found = [(row.id, row.text, row.image, row.image_id) for row in reader.rows(start)]
        assert found == expected[start:]


def test_triplets_take_either_image_and_text(make, images, triplets):
    assert triplet_images(triplets) == set("abce")
    store = ImageStore(images, triplet_images(triplets), kept_shards=1)
    queries = list(TripletReader(triplets, "instruction", "reference_id", store).rows(0))
    targets = list(TripletReader(triplets, "target_description", "target_id", store).rows(1))
    assert queries[0] == EncoderRow("ae", "to e", make.png(0), "a", is_query=True) and len(queries) == 4
    assert targets[0] == EncoderRow("ea", "this is a", make.png(0), "a") and len(targets) == 3
    assert [row.image for row in TripletReader(triplets, "instruction").rows(0)] == [None] * 4


def test_triplets_of_a_skipped_image_are_left_out(triplets):
    reader = TripletReader(triplets, "instruction", skip={"e"})
    assert len(reader) == 2 and [row.id for row in reader.rows(0)] == ["bc", "cb"]


def test_a_triplet_without_its_image_is_an_error(make, triplets, tmp_path):
    store = ImageStore(make.images(tmp_path / "few", ["a"]), triplet_images(triplets))
    with pytest.raises(ArtifactError, match="triplet 'ea' has reference_id 'e'"):
        list(TripletReader(triplets, "instruction", "reference_id", store).rows(0))


def test_a_gallery_is_every_image(make, images):
    assert [(row.id, row.text, row.image) for row in ImageReader(images).rows(3)] == [
        ("d", "", make.png(3)),
        ("e", "", make.png(4)),
    ]
