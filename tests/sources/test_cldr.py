from __future__ import annotations

import pytest

from pipeline.sources.emoji.captions import MAX_WORDS, long_caption, short_caption
from pipeline.sources.emoji.cldr import Emoji, parse_rows, with_article
from pipeline.sources.emoji.edits import ATTRIBUTES
from pipeline.sources.errors import SourceError

NAMES = {
    "groups": {"1": "people-body", "5": "travel-places", "8": "symbols"},
    "subgroups": {
        "23": "person",
        "25": "person-role",
        "27": "person-activity",
        "14": "heart",
        "58": "time",
        "59": "sky-weather",
        "85": "arrow",
    },
}


def row(label: str, hexcode: str, subgroup: int, group: int = 1, **more) -> dict:
    return {"label": label, "hexcode": hexcode, "group": group, "subgroup": subgroup, "tags": ["one", "two"], **more}


ROWS = [
    row("firefighter", "1F9D1-200D-1F692", 25),
    row(
        "man firefighter",
        "1F468-200D-1F692",
        25,
        skins=[
            row("man firefighter: medium skin tone", "1F468-1F3FD-200D-1F692", 25, tone=3),
        ],
    ),
    row(
        "woman: red hair",
        "1F469-200D-1F9B0",
        23,
        skins=[
            row("woman: dark skin tone, red hair", "1F469-1F3FF-200D-1F9B0", 23, tone=5),
        ],
    ),
    row("woman: bald", "1F469-200D-1F9B2", 23),
    row("woman walking", "1F6B6-200D-2640", 27),
    row("woman walking: facing right", "1F6B6-200D-2640-FE0F-200D-27A1-FE0F", 27),
    row("mermaid", "1F9DC-200D-2640", 25),
    row("light blue heart", "1FA75", 14, 8),
    row("one-thirty", "1F55C", 58, 5),
    row("twelve o’clock", "1F55B", 58, 5),
    row("waxing crescent moon", "1F312", 59, 5),
    row("full moon face", "1F31D", 59, 5),
    row("up-right arrow", "2197", 85, 8),
    {"label": "regional indicator A", "hexcode": "1F1E6"},
]
PARSED = {emoji.label: emoji for emoji in parse_rows(ROWS, NAMES)}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (
            "firefighter",
            {
                "gender": "person",
                "role": "firefighter",
                "role_phrase": "a firefighter",
                "form": "person",
                "tones": None,
            },
        ),
        ("man firefighter", {"gender": "man", "role": "firefighter", "tones": ()}),
        ("man firefighter: medium skin tone", {"gender": "man", "role": "firefighter", "tones": (3,)}),
        (
            "woman: dark skin tone, red hair",
            {"gender": "woman", "hair": "red hair", "tones": (5,), "form": "adult", "role": None},
        ),
        (
            "woman walking",
            {"gender": "woman", "role": "walking", "role_phrase": "a person walking", "direction": "left"},
        ),
        ("woman walking: facing right", {"gender": "woman", "role": "walking", "direction": "right"}),
        ("mermaid", {"gender": "woman", "role": "merperson"}),
        ("light blue heart", {"form": "heart", "colour": "light blue", "gender": None}),
        ("one-thirty", {"form": "clock", "time": "1:30"}),
        ("twelve o’clock", {"form": "clock", "time": "12:00"}),
        ("waxing crescent moon", {"form": "moon", "moon": "waxing crescent"}),
        ("full moon face", {"form": "moon face", "moon": "full"}),
        ("up-right arrow", {"form": "arrow", "direction": "upper right"}),
    ],
)
def test_labels_are_parsed_into_attributes(label, expected):
    emoji = PARSED[label]
    assert {name: getattr(emoji, name) for name in expected} == expected


def test_rows_without_a_group_are_left_out():
    assert "regional indicator A" not in PARSED


@pytest.mark.parametrize(
    ("label", "caption"),
    [
        ("man firefighter: medium skin tone", "man firefighter with medium skin tone"),
        ("woman: red hair", "woman with red hair"),
        ("woman: dark skin tone, red hair", "woman with red hair and dark skin tone"),
        ("woman: bald", "bald woman"),
        ("woman walking: facing right", "woman walking facing right"),
        ("twelve o’clock", "twelve o'clock"),
    ],
)
def test_short_captions(label, caption):
    assert short_caption(PARSED[label]) == caption


def plain(label: str, **more) -> Emoji:
    return Emoji("1f000", label, ("tag",), "people-body", "family", form="x", **more)


@pytest.mark.parametrize(
    ("label", "tones", "caption"),
    [
        ("flag: Norway", None, "flag of Norway"),
        ("keycap: 7", None, "keycap 7"),
        ("family: man, woman, boy", None, "family of man, woman and boy"),
        (
            "kiss: woman, man, light skin tone, dark skin tone",
            (1, 5),
            "kiss between woman and man with light and dark skin tones",
        ),
        ("person with white cane: dark skin tone", (5,), "person with white cane and dark skin tone"),
    ],
)
def test_short_captions_of_other_labels(label, tones, caption):
    assert short_caption(plain(label, tones=tones)) == caption


def test_empty_caption_names_the_row():
    with pytest.raises(SourceError, match="1f000"):
        short_caption(plain("  "))


def test_articles():
    assert [with_article(words) for words in ("elf", "cook", "people running", "Santa Claus")] == [
        "an elf",
        "a cook",
        "people running",
        "Santa Claus",
    ]


def test_real_labels_give_captions_and_distinct_attributes(raw_emoji):
    assert len(raw_emoji) == 3953
    for emoji in raw_emoji:
        assert short_caption(emoji)
        assert 5 <= len(long_caption(emoji).split()) <= MAX_WORDS
    keys = [tuple(getattr(emoji, name) for name in ATTRIBUTES) for emoji in raw_emoji]
    assert len(set(keys)) == len(keys)
