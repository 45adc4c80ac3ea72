"""CLDR rows of the emoji: labels parsed into the attributes that edits change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.sources.emoji.artwork import normal_code
from pipeline.sources.emoji.fetch import LABELS, read_members
from pipeline.sources.errors import SourceError

TONES = ("default yellow", "light", "medium-light", "medium", "medium-dark", "dark")
HAIR = ("red hair", "curly hair", "white hair", "bald", "blond hair", "beard")
COLOURS = (
    "red",
    "pink",
    "orange",
    "yellow",
    "green",
    "light blue",
    "blue",
    "purple",
    "brown",
    "black",
    "grey",
    "white",
)
MOON_PHASES = (
    "new",
    "waxing crescent",
    "first quarter",
    "waxing gibbous",
    "full",
    "waning gibbous",
    "last quarter",
    "waning crescent",
)
HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

ROLE_SUBGROUPS = {
    "person-gesture",
    "person-role",
    "person-fantasy",
    "person-activity",
    "person-sport",
    "person-resting",
}
COLOUR_SUBGROUPS = {"heart", "geometric", "book-paper", "food-fruit", "punctuation", "flag"}

_GENDERS = {"man": "man", "woman": "woman", "person": "person", "men": "man", "women": "woman", "people": "person"}
_PLURALS = {"men", "women", "people"}
# Names that carry their gender in another place than the first word: (gender, name without it).
_IRREGULAR = {
    "merman": ("man", "merperson"),
    "mermaid": ("woman", "merperson"),
    "merperson": ("person", "merperson"),
    "prince": ("man", "royalty"),
    "princess": ("woman", "royalty"),
    "person with crown": ("person", "royalty"),
    "Santa Claus": ("man", "Claus"),
    "Mrs. Claus": ("woman", "Claus"),
    "Mx Claus": ("person", "Claus"),
    "deaf man": ("man", "deaf"),
    "deaf woman": ("woman", "deaf"),
    "deaf person": ("person", "deaf"),
    "pregnant man": ("man", "pregnant"),
    "pregnant woman": ("woman", "pregnant"),
    "pregnant person": ("person", "pregnant"),
    "boy": ("man", "child"),
    "girl": ("woman", "child"),
    "child": ("person", "child"),
    "old man": ("man", "older adult"),
    "old woman": ("woman", "older adult"),
    "older person": ("person", "older adult"),
    "man": ("man", "adult"),
    "woman": ("woman", "adult"),
    "person": ("person", "adult"),
    "breast-feeding": ("woman", "breast-feeding"),
}
_ROLE_PHRASES = {
    "royalty": "a royal with a crown",
    "Claus": "a Christmas Claus",
    "deaf": "a deaf person",
    "pregnant": "a pregnant person",
    "breast-feeding": "a person breast-feeding",
    "horse racing": "a jockey in a horse race",
}
_DIRECTIONS = {
    "left": "left",
    "right": "right",
    "up": "up",
    "down": "down",
    "leftwards": "left",
    "rightwards": "right",
    "upwards": "up",
    "downwards": "down",
    "up-right": "upper right",
    "down-right": "lower right",
    "up-left": "upper left",
    "down-left": "lower left",
    "up-down": "up and down",
    "left-right": "left and right",
}
_WORD = "|".join(sorted(_DIRECTIONS, key=len, reverse=True))
_DIRECTED = [
    re.compile(pattern.replace("DIRECTION", f"(?P<direction>{_WORD})"))
    for pattern in (
        r"DIRECTION (?P<form>arrow)",
        r"(?P<form>backhand index pointing) DIRECTION",
        r"(?P<form>palm) DIRECTION hand",
        r"DIRECTION (?P<form>hand)",
        r"DIRECTION (?P<form>pushing hand)",
        r"DIRECTION-facing (?P<form>fist)",
        r"(?P<form>triangle) pointed DIRECTION",
        r"(?P<form>thumbs) DIRECTION",
        r"(?P<form>fast) DIRECTION button",
        r"DIRECTION (?P<form>button)",
        r"(?P<form>magnifying glass) tilted DIRECTION",
    )
]
_COLOURED = re.compile(rf"(?P<size>large |small |)(?P<colour>{'|'.join(COLOURS)}) (?P<form>.+)")
_CLOCK = re.compile(rf"(?P<hour>{'|'.join(HOURS)})(?P<half> o'clock|-thirty)")
_MOON = re.compile(rf"(?P<phase>{'|'.join(MOON_PHASES)}) (?P<form>moon|moon face)")


@dataclass(frozen=True)
class Emoji:
    """One character. An attribute that cannot vary for it is None."""

    code: str
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str
    form: str
    """What is drawn, without the attributes below."""
    gender: str | None = None
    """man | woman | person (no stated gender)."""
    tones: tuple[int, ...] | None = None
    """() is the default yellow; two tones for two people; positions in TONES."""
    role: str | None = None
    """Job, being, sport, activity or gesture of a person."""
    role_phrase: str | None = None
    """The role in words that leave the gender open: `a firefighter`."""
    hair: str | None = None
    colour: str | None = None
    time: str | None = None
    """`1:00` to `12:30`."""
    moon: str | None = None
    direction: str | None = None

    @property
    def family(self) -> str:
        """The same thing whatever its gender, tone, hair, colour, time, phase or direction."""
        return f"{self.form}/{self.role}" if self.role else self.form


def with_article(words: str) -> str:
    """`a firefighter`, `an elf`; nothing before plurals and names."""
    first = words.split()[0]
    if first in _PLURALS or first[:1].isupper() or not first[:1].isalpha():
        return words
    return f"{'an' if first[0] in 'aeio' or first.startswith('umb') else 'a'} {words}"


def split_label(label: str) -> tuple[str, list[str]]:
    """`woman: dark skin tone, red hair` -> (`woman`, [`dark skin tone`, `red hair`])."""
    name, _, tail = label.replace("’", "'").partition(": ")
    return name, tail.split(", ") if tail else []


def read_emoji(folder: str | Path) -> list[Emoji]:
    """The characters of the labels package in `folder`."""
    tarball = Path(folder) / LABELS.tarball
    try:
        rows = json.loads(read_members(tarball, "en/", ".json")["data"])
        names = json.loads(read_members(tarball, "meta/", ".json")["groups"])
        return parse_rows(rows, names)
    except SourceError:
        raise
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise SourceError(f"{tarball}: labels are not in the expected shape ({error!r})") from None


def parse_rows(rows: Iterable[dict[str, Any]], names: dict[str, dict[str, str]]) -> list[Emoji]:
    """Rows of `en/data.json`, skin variants included, sorted by code.

    `names` is `meta/groups.json`. Rows without a group (the regional indicators) have no image of
    their own and are left out.
    """
    rows = [row for row in rows if "group" in row]
    labels = [split_label(row["label"]) for row in rows]
    known_names = {name for name, _ in labels}
    facing = {name for name, qualifiers in labels if "facing right" in qualifiers}
    parsed = []
    for row in rows:
        for variant in (row, *row.get("skins", ())):
            group, subgroup = names["groups"][str(row["group"])], names["subgroups"][str(row["subgroup"])]
            parsed.append(
                Emoji(
                    code=normal_code(variant["hexcode"]),
                    label=variant["label"],
                    tags=tuple(row.get("tags", ())),
                    group=group,
                    subgroup=subgroup,
                    tones=_tones(variant, "skins" in row),
                    **_attributes(variant["label"], subgroup, known_names, facing),
                )
            )
    return sorted(parsed, key=lambda emoji: emoji.code)


def _tones(row: dict[str, Any], has_tones: bool) -> tuple[int, ...] | None:
    if not has_tones and "tone" not in row:
        return None
    tone = row.get("tone", ())
    return (tone,) if isinstance(tone, int) else tuple(tone)


def _attributes(label: str, subgroup: str, known_names: set[str], facing: set[str]) -> dict[str, Any]:
    name, qualifiers = split_label(label)
    hair = next((qualifier for qualifier in qualifiers if qualifier in HAIR), None)
    rest = [q for q in qualifiers if q not in HAIR and q != "facing right" and not q.endswith(" skin tone")]
    if rest:  # kiss: woman, man; flag: Norway
        return {"form": f"{name}: {', '.join(rest)}"}
    if subgroup in ROLE_SUBGROUPS or subgroup == "person":
        return _person(name, subgroup, hair, qualifiers, known_names, facing)
    return _thing(name, subgroup)


def _person(
    name: str, subgroup: str, hair: str | None, qualifiers: list[str], known_names: set[str], facing: set[str]
) -> dict[str, Any]:
    first, _, after = name.partition(" ")
    if name in _IRREGULAR:
        gender, base = _IRREGULAR[name]
    elif first in _GENDERS and after:
        gender, base = _GENDERS[first], after
    else:
        gender, base = "person", name
    if subgroup == "person":
        return {"form": base, "gender": gender, "hair": (hair or "default") if base == "adult" else None}
    plural = first in _PLURALS
    neutral = base if base in known_names else f"{'people' if plural else 'person'} {base}"
    return {
        "form": "people" if plural else "person",
        "gender": gender,
        "role": base,
        "role_phrase": _ROLE_PHRASES.get(base) or with_article(neutral),
        "direction": ("right" if "facing right" in qualifiers else "left") if name in facing else None,
    }


def _thing(name: str, subgroup: str) -> dict[str, Any]:
    if subgroup == "family":
        first, _, after = name.partition(" ")
        return {"form": after, "gender": _GENDERS[first]} if first in _PLURALS else {"form": name}
    if clock := _CLOCK.fullmatch(name):
        minutes = "00" if clock["half"] == " o'clock" else "30"
        return {"form": "clock", "time": f"{HOURS.index(clock['hour']) + 1}:{minutes}"}
    if moon := _MOON.fullmatch(name):
        return {"form": moon["form"], "moon": moon["phase"]}
    colour = None
    if subgroup in COLOUR_SUBGROUPS and (coloured := _COLOURED.fullmatch(name)):
        colour, name = coloured["colour"], coloured["size"] + coloured["form"]
        # The black and white squares come in four sizes, the coloured ones only in the large.
        name = "square" if name == "large square" else name
    for pattern in _DIRECTED:
        if directed := pattern.fullmatch(name):
            return {"form": directed["form"], "direction": _DIRECTIONS[directed["direction"]], "colour": colour}
    return {"form": name, "colour": colour}
