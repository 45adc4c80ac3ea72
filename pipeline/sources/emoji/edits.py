"""Edits: ordered pairs of emoji that differ in exactly one attribute.

The attribute that differs is the edit's kind. Role edits leave a direction of `left` aside, because
facing left is only how people who can also face right are drawn by default.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.sources.emoji.cldr import TONES, Emoji, with_article

KINDS = ("gender", "tone", "role", "hair", "colour", "time", "moon", "direction")
ATTRIBUTES = ("form", "gender", "tones", "role", "hair", "colour", "time", "moon", "direction")
_FIELD = {"tone": "tones"}

_NOUNS = {
    "child": {"man": "a boy", "woman": "a girl", "person": "a child of no stated gender"},
    "people": {"man": "men", "woman": "women", "person": "people of no stated gender"},
}
_ADULTS = {"man": "a man", "woman": "a woman", "person": "a person of no stated gender"}
_TOWARDS = {
    "left": "to the left",
    "right": "to the right",
    "up": "upwards",
    "down": "downwards",
    "upper left": "to the upper left",
    "upper right": "to the upper right",
    "lower left": "to the lower left",
    "lower right": "to the lower right",
    "up and down": "both up and down",
    "left and right": "both left and right",
}
_HOUR_WORDS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True)
class Edit:
    """Change `reference` into `target`, which differs in `kind` alone."""

    kind: str
    reference: Emoji
    target: Emoji


def value_of(emoji: Emoji, kind: str) -> str | tuple[int, ...] | None:
    """The attribute that edits of `kind` change; None where such an edit is not possible."""
    value = getattr(emoji, _FIELD.get(kind, kind))
    # Two people's tones are two changes, not one.
    return None if kind == "tone" and value is not None and len(value) > 1 else value


def key_without(emoji: Emoji, *kinds: str) -> tuple:
    """All attributes but those of `kinds`: equal for the two sides of an edit."""
    left_out = {_FIELD.get(kind, kind) for kind in kinds}
    values = {name: getattr(emoji, name) for name in ATTRIBUTES if name not in left_out}
    if "role" in kinds and emoji.role and emoji.direction == "left":
        values["direction"] = None
    return tuple(values.values())


def possible_edits(emoji: Iterable[Emoji], kind: str, images: Mapping[str, bytes]) -> list[Edit]:
    """Every edit of `kind` among `emoji`, in a fixed order.

    `images` maps codes to encoded images: artists draw some pairs alike (a man and a person of no
    stated gender), and an edit that changes nothing visible is left out.
    """
    groups: dict[tuple, list[Emoji]] = defaultdict(list)
    for one in sorted(emoji, key=lambda one: one.code):
        if value_of(one, kind) is not None:
            groups[key_without(one, kind)].append(one)
    return [
        Edit(kind, reference, target)
        for group in groups.values()
        for reference in group
        for target in group
        if value_of(reference, kind) != value_of(target, kind) and images[reference.code] != images[target.code]
    ]


def wording_fields(target: Emoji) -> dict[str, str]:
    """What the wordings' braces may name, in words."""
    fields: dict[str, str] = {}
    if target.gender:
        nouns = _NOUNS.get(target.form, _ADULTS)
        fields["gender"] = nouns[target.gender]
    if target.tones is not None and len(target.tones) < 2:
        fields["tone"] = TONES[target.tones[0]] if target.tones else TONES[0]
    if target.role_phrase:
        fields["role"] = target.role_phrase
    if target.hair:
        hair = {"default": "ordinary hair", "bald": "a bald head", "beard": "a beard"}
        fields["hair"] = hair.get(target.hair, target.hair)
    if target.colour:
        fields["colour"] = target.colour
    if target.time:
        hour, minutes = target.time.split(":")
        word = _HOUR_WORDS[int(hour)]
        fields["time"] = f"{word} o'clock" if minutes == "00" else f"half past {word}"
        fields["digits"] = target.time
    if target.moon:
        fields["moon"] = with_article(f"{target.moon} moon")
    if target.direction:
        fields["direction"] = _TOWARDS[target.direction]
    return fields


def balanced(edits: Mapping[str, list], count: int, random_state: random.Random) -> dict[str, list]:
    """Draw `count` edits, as evenly over the kinds as their numbers allow."""
    drawn: dict[str, list] = {}
    left = count
    for position, kind in enumerate(sorted(edits, key=lambda kind: (len(edits[kind]), kind))):
        share = min(len(edits[kind]), left // (len(edits) - position))
        drawn[kind] = random_state.sample(edits[kind], share)
        left -= share
    return drawn
