"""How near two emoji are, by a written rule on their attributes, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.sources.emoji.cldr import MOON_PHASES, Emoji, split_label

_CONCEPTS = {
    "heart": "heart",
    "country-flag": "flag",
    "subdivision-flag": "flag",
    "flag": "flag",
    "arrow": "arrow",
    "time": "clock",
    "book-paper": "book",
    "geometric": "geometric shape",
    "cat-face": "cat",
    "monkey-face": "monkey",
    "body-parts": "body part",
    "clothing": "clothing",
    "musical-instrument": "musical instrument",
    "family": "people together",
}


def distance(one: Emoji, other: Emoji) -> float:
    """Zero for an emoji and itself; larger the more they differ.

    4 for another form or role; 1.5 each for another gender, hair, colour or direction; for tones,
    clocks and moons 1 plus a part that grows with the steps between them (around the dial and around
    the month); 64 for another subgroup and 64 more for another group, more than all else together.
    """
    total = 4.0 * (one.family != other.family)
    total += 64.0 * (one.subgroup != other.subgroup) + 64.0 * (one.group != other.group)
    total += 1.5 * sum(getattr(one, name) != getattr(other, name) for name in ("gender", "hair", "colour", "direction"))
    if one.tones != other.tones:
        total += 1.0 + 0.2 * abs(_mean(one.tones) - _mean(other.tones))
    if one.time != other.time:
        total += 1.0 + 0.1 * _around(_half_hours(one), _half_hours(other), 24)
    if one.moon != other.moon:
        total += 1.0 + 0.2 * _around(_phase(one), _phase(other), len(MOON_PHASES))
    return total


def _mean(tones: tuple[int, ...] | None) -> float:
    return sum(tones) / len(tones) if tones else 0.0


def _around(one: int, other: int, size: int) -> int:
    return min((one - other) % size, (other - one) % size)


def _half_hours(emoji: Emoji) -> int:
    hour, minutes = (emoji.time or "0:00").split(":")
    return int(hour) * 2 + (minutes == "30")


def _phase(emoji: Emoji) -> int:
    return MOON_PHASES.index(emoji.moon) if emoji.moon else 0


def nearest(reference: Emoji, others: Iterable[Emoji], count: int) -> list[Emoji]:
    """The `count` emoji nearest to `reference`, itself left out, ties by code."""
    others = [other for other in others if other.code != reference.code]
    relatives = [other for other in others if other.subgroup == reference.subgroup]
    # No other subgroup can be nearer, so most of the gallery need not be measured.
    others = relatives if len(relatives) >= count else others
    ranked = sorted((distance(reference, other), other.code, other) for other in others)
    return [other for _, _, other in ranked[:count]]


def shared_concept(emoji: Emoji) -> str:
    """What an edit leaves unchanged, as one coarse word or two."""
    if emoji.moon:
        return "moon"
    if emoji.gender:
        return "people" if emoji.form == "people" or emoji.subgroup == "family" else "person"
    if emoji.subgroup == "geometric":
        return emoji.form
    if emoji.subgroup.startswith("hand"):
        return "hand"
    return _CONCEPTS.get(emoji.subgroup, split_label(emoji.form)[0])
