"""The validation split: whose OpenMoji images no pair and no triplet may show.

The unit that is held out is the family, so that all genders and tones of a role go together. Where
one family carries a whole kind (clocks, moons, hair, the colours of one shape), the unit is the
family with one value. Units are drawn from each such group apart, so that every kind of query exists
among the held-out images; a group too small for the share gives half of itself, up to six units.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable

from pipeline.sources.emoji.cldr import Emoji

_BY_VALUE = ("time", "moon", "hair", "colour")
_SMALL_SHARE, _SMALL_COUNT = 0.5, 6


def unit_of(emoji: Emoji) -> tuple[str, str]:
    """(group that is drawn from, unit that is held out or kept as a whole)."""
    for kind in _BY_VALUE:
        if value := getattr(emoji, kind):
            # The full moon and its face show the same phase: other families stay apart.
            return f"{kind}/{emoji.family}", f"{emoji.family}/{value}"
    if emoji.direction:
        return "direction", emoji.family
    if emoji.role:
        return "role", emoji.family
    return "other", emoji.family


def held_out(emoji: Iterable[Emoji], share: float, seed: int) -> set[str]:
    """Codes of the emoji whose images belong to the validation split."""
    units: dict[str, set[str]] = defaultdict(set)
    codes: dict[str, list[str]] = defaultdict(list)
    for one in emoji:
        group, unit = unit_of(one)
        units[group].add(unit)
        codes[unit].append(one.code)
    chosen: set[str] = set()
    for group, names in sorted(units.items()):
        small = min(_SMALL_COUNT, math.floor(_SMALL_SHARE * len(names)))
        # A lone unit has no other to be changed into.
        count = max(round(share * len(names)), small if small > 1 else 0) if share else 0
        for unit in random.Random(f"split/{group}/{seed}").sample(sorted(names), count):
            chosen.update(codes[unit])
    return chosen
