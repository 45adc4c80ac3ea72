"""What must hold between the tables: splits, targets, wordings, repeatability."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import schemas, write_table
from pipeline.sources.emoji import build_tables, wordings
from pipeline.sources.emoji.cldr import MOON_PHASES, Emoji
from pipeline.sources.emoji.edits import KINDS, key_without, possible_edits, value_of
from pipeline.sources.emoji.nearness import distance, nearest
from pipeline.sources.emoji.split import held_out

QUERY_TABLES = ("benchmarks/emoji_cir/queries", "benchmarks/emoji_cir/genecis", "benchmarks/emoji_cir_val/queries")


def ids(tables, name: str, *columns: str) -> set[str]:
    found: set[str] = set()
    for column in columns:
        for value in tables[name].column(column).to_pylist():
            found.update(value if isinstance(value, list) else [value])
    return found


def training_ids(tables) -> set[str]:
    return (
        ids(tables, "pairs/images", "image_id")
        | ids(tables, "pairs/pairs", "image_id")
        | set().union(*(ids(tables, f"triplets/{name}", "reference_id", "target_id") for name in ("sampled", "all")))
    )


def test_schemas(tables):
    expected = {
        "images": schemas.IMAGES,
        "pairs": schemas.PAIRS,
        "sampled": schemas.TRIPLETS,
        "all": schemas.TRIPLETS,
        "queries": schemas.QUERIES,
        "genecis": schemas.QUERIES,
    }
    for name, table in tables.items():
        assert table.schema == expected[name.split("/")[-1]], name
        assert table.num_rows > 0, name


def test_no_twemoji_in_training_or_validation(tables):
    seen = training_ids(tables) | ids(tables, "benchmarks/emoji_cir_val/images", "image_id")
    assert {image_id.split("/")[0] for image_id in seen} == {"noto", "openmoji"}
    assert {image_id.split("/")[0] for image_id in ids(tables, "benchmarks/emoji_cir/images", "image_id")} == {
        "twemoji"
    }


def test_validation_answers_are_never_trained_on(tables):
    answers = ids(tables, "benchmarks/emoji_cir_val/queries", "reference_id", "target_ids")
    assert answers and not answers & training_ids(tables)


@pytest.mark.parametrize("name", QUERY_TABLES)
def test_queries_are_sound(tables, name):
    gallery = ids(tables, name.rsplit("/", 1)[0] + "/images", "image_id")
    rows = tables[name].to_pylist()
    assert len({row["query_id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["reference_id"] in gallery and set(row["target_ids"]) | set(row["subset_ids"]) <= gallery
        assert row["reference_id"] not in row["target_ids"] and row["reference_id"] not in row["subset_ids"]
        assert row["target_ids"][0] in row["subset_ids"]
        assert len(set(row["target_ids"])) == len(row["target_ids"])
        assert len(set(row["subset_ids"])) == len(row["subset_ids"])
        assert not set(row["subset_ids"]) & set(row["target_ids"][1:])
        assert row["modifications"][0] and "{" not in row["modifications"][0] and row["shared_concept"]
        assert 10 <= len(row["subset_ids"]) <= 15 if name.endswith("genecis") else len(row["subset_ids"]) == 6


def test_no_target_looks_like_its_reference(tables):
    images = tables["benchmarks/emoji_cir/images"].to_pylist()
    pictures = {row["image_id"]: row["bytes"] for row in images}
    for row in tables["benchmarks/emoji_cir/queries"].to_pylist():
        assert all(pictures[row["reference_id"]] != pictures[target] for target in row["target_ids"])


def test_triplets_stay_within_a_team(tables):
    for row in tables["triplets/all"].to_pylist():
        assert row["reference_id"].split("/")[0] == row["target_id"].split("/")[0]
        assert row["reference_id"] != row["target_id"] and row["instruction"] and row["target_description"]


def test_wordings_are_held_apart():
    sets = [
        {text for texts in group.values() for text in texts}
        for group in (
            wordings.TRAINING,
            wordings.VALIDATION,
            wordings.TEST,
            wordings.VALIDATION_OPEN,
            wordings.TEST_OPEN,
            wordings.FOCUS_ATTRIBUTE,
            wordings.FOCUS_OBJECT,
        )
    ]
    assert len(set().union(*sets)) == sum(map(len, sets))
    assert all(set(group) == set(KINDS) for group in (wordings.TRAINING, wordings.VALIDATION, wordings.TEST))


def test_same_inputs_give_equal_manifests(fixture_params, tables, tmp_path):
    again = build_tables(fixture_params, seed=0)
    for name in tables:
        first = write_table(tmp_path / "first" / name, tables[name], {})
        assert first == write_table(tmp_path / "second" / name, again[name], {})


def test_another_seed_gives_other_triplets(fixture_params, tables):
    other = build_tables(fixture_params, seed=1)
    assert not other["triplets/sampled"].equals(tables["triplets/sampled"])


emoji_lists = st.lists(
    st.builds(
        Emoji,
        code=st.uuids().map(str),
        label=st.just("x"),
        tags=st.just(()),
        group=st.just("people-body"),
        subgroup=st.sampled_from(["person-role", "heart"]),
        form=st.sampled_from(["person", "heart"]),
        gender=st.sampled_from([None, "man", "woman", "person"]),
        tones=st.sampled_from([None, (), (1,), (5,), (1, 5)]),
        role=st.sampled_from([None, "cook", "pilot"]),
        colour=st.sampled_from([None, "red", "blue"]),
        moon=st.sampled_from([None, *MOON_PHASES]),
        direction=st.sampled_from([None, "left", "right"]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(emoji_lists, st.sampled_from(KINDS))
def test_an_edit_changes_its_kind_alone(emoji, kind):
    pictures = {one.code: one.code.encode() for one in emoji}
    edits = possible_edits(emoji, kind, pictures)
    for edit in edits:
        assert value_of(edit.reference, kind) != value_of(edit.target, kind)
        assert key_without(edit.reference, kind) == key_without(edit.target, kind)
    assert {(edit.target.code, edit.reference.code) for edit in edits} == {
        (edit.reference.code, edit.target.code) for edit in edits
    }
    assert possible_edits(emoji, kind, dict.fromkeys(pictures, b"alike")) == []


@settings(max_examples=60, deadline=None)
@given(emoji_lists)
def test_distance_is_zero_at_home_and_symmetric(emoji):
    for one in emoji:
        assert distance(one, one) == 0
        assert all(distance(one, other) == pytest.approx(distance(other, one)) for other in emoji)
        assert one not in nearest(one, emoji, 5)


@settings(max_examples=60, deadline=None)
@given(emoji_lists, st.floats(0, 1), st.integers(0, 9))
def test_held_out_units_are_whole(emoji, share, seed):
    chosen = held_out(emoji, share, seed)
    assert chosen <= {one.code for one in emoji}
    assert held_out(list(reversed(emoji)), share, seed) == chosen
    if share == 0:
        assert not chosen
