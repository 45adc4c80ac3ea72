"""Small-gallery queries in GeneCIS' shape: focus or change, an attribute or an object.

A gallery (`subset_ids`) holds one target and hard distractors of two sorts, so that neither half of
the query is enough. The reference is not in it.

- focus attribute: the target is another object with the reference's value; distractors are either object
  with another value.
- change attribute: the target is the reference with the named value; distractors are the reference with
  other values, and other objects with the named value.
- focus object: the target is the same object, otherwise different; distractors are other objects that
  share the reference's looks.
- change object: the target is the named object with the reference's looks; distractors are the named
  object with other looks, and others with the reference's looks.

An object is a role or a shape; looks are gender, tone, hair and colour.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.sources.emoji.cldr import Emoji
from pipeline.sources.emoji.edits import possible_edits, value_of, wording_fields
from pipeline.sources.emoji.nearness import shared_concept
from pipeline.sources.emoji.queries import Gallery
from pipeline.sources.emoji.wordings import FOCUS_ATTRIBUTE, FOCUS_OBJECT, TEST

FOCUS_ATTRIBUTE_SIZE = 10
SIZE = 15
SMALLEST = 10

_CHANGED_ATTRIBUTES = ("gender", "tone", "hair", "colour")


def _object(emoji: Emoji) -> str:
    return emoji.family


def _looks(emoji: Emoji) -> tuple:
    return (emoji.gender, emoji.tones, emoji.hair, emoji.colour)


class _Builder:
    """Draws the queries of one gallery."""

    def __init__(self, gallery: Gallery, seed: int):
        self.gallery = gallery
        self.random = random.Random(f"genecis/{gallery.team}/{seed}")
        # One emoji an image: a look-alike of the target would be a second right answer.
        self.distinct = [group[0] for group in gallery.alike().values()]
        self.distinct.sort(key=lambda one: one.code)
        self.used: Counter[str] = Counter()

    def row(
        self,
        condition: str,
        reference: Emoji,
        target: Emoji,
        pools: tuple[list[Emoji], list[Emoji]],
        size: int,
        text: str,
    ) -> dict | None:
        """A query with distractors drawn evenly from the two pools; None where they are too few."""
        left_out = {reference.code, target.code}
        first, second = ([one for one in pool if one.code not in left_out] for pool in pools)
        half = (size - 1) // 2
        take = min(len(first), max(half, size - 1 - len(second)))
        distractors = self.random.sample(first, take)
        second = [one for one in second if one not in distractors]
        distractors += self.random.sample(second, min(len(second), size - 1 - take))
        if len(distractors) + 1 < SMALLEST:
            return None
        stem = f"{condition}/{reference.code}"
        self.used[stem] += 1
        return {
            "query_id": f"{stem}/{self.used[stem] - 1}",
            "reference_id": self.gallery.image_id(reference),
            "modifications": [text],
            "target_ids": [self.gallery.image_id(target)],
            "subset_ids": sorted(self.gallery.image_id(one) for one in (target, *distractors)),
            "category": condition,
            "shared_concept": shared_concept(reference),
        }

    def focus_attribute(self, kind: str, reference: Emoji) -> dict | None:
        value, hair = value_of(reference, kind), kind == "hair"
        if value is None:
            return None
        peers = [one for one in self.distinct if value_of(one, kind) is not None]

        # All hair is on one family, so another "object" is there somebody of other gender and tone.
        def same(one: Emoji, other: Emoji) -> bool:
            return (one.gender, one.tones) == (other.gender, other.tones) if hair else _object(one) == _object(other)

        targets = [one for one in peers if value_of(one, kind) == value and not same(one, reference)]
        if not targets:
            return None
        target = self.random.choice(targets)
        others = [one for one in peers if value_of(one, kind) != value]
        pools = ([one for one in others if same(one, reference)], [one for one in others if same(one, target)])
        text = self.random.choice(FOCUS_ATTRIBUTE[kind])
        return self.row("focus_attribute", reference, target, pools, FOCUS_ATTRIBUTE_SIZE, text)

    def change_attribute(self, kind: str, reference: Emoji, target: Emoji) -> dict | None:
        value = value_of(target, kind)
        peers = [one for one in self.distinct if value_of(one, kind) is not None]
        pools = (
            [one for one in peers if _object(one) == _object(reference) and value_of(one, kind) != value],
            [one for one in peers if _object(one) != _object(reference) and value_of(one, kind) == value],
        )
        if kind == "hair":  # the second pool: the named hair on people of other looks
            pools = (pools[0], [one for one in peers if value_of(one, kind) == value])
        text = self.random.choice(TEST[kind]).format(**wording_fields(target))
        return self.row("change_attribute", reference, target, pools, SIZE, text)

    def focus_object(self, kind: str, reference: Emoji) -> dict | None:
        if value_of(reference, kind) is None:
            return None
        peers = [one for one in self.distinct if value_of(one, kind) is not None]
        targets = [
            one
            for one in peers
            if _object(one) == _object(reference)
            and one.direction == reference.direction
            and all(a is None or a != b for a, b in zip(_looks(one), _looks(reference), strict=True))
        ]
        if not targets:
            return None
        target = self.random.choice(targets)
        others = [one for one in peers if _object(one) != _object(reference)]
        pools = (
            [one for one in others if _looks(one) == _looks(reference)],
            [one for one in others if _looks(one) == _looks(target)],
        )
        return self.row("focus_object", reference, target, pools, SIZE, self.random.choice(FOCUS_OBJECT[kind]))

    def change_object(self, reference: Emoji, target: Emoji) -> dict | None:
        peers = [one for one in self.distinct if one.role is not None]
        pools = (
            [one for one in peers if _object(one) == _object(target) and _looks(one) != _looks(target)],
            [one for one in peers if _object(one) != _object(target) and _looks(one) == _looks(target)],
        )
        text = self.random.choice(TEST["role"]).format(**wording_fields(target))
        return self.row("change_object", reference, target, pools, SIZE, text)


def build_genecis(gallery: Gallery, per_condition: int, seed: int) -> pa.Table:
    """Up to `per_condition` queries for each of the four conditions, as `schemas.QUERIES`."""
    builder = _Builder(gallery, seed)
    distinct = builder.distinct
    changes = {kind: possible_edits(distinct, kind, gallery.images) for kind in _CHANGED_ATTRIBUTES}
    roles = possible_edits(distinct, "role", gallery.images)
    plans: tuple[dict[str, list[Callable[[], dict | None]]], ...] = (
        {kind: [partial(builder.focus_attribute, kind, one) for one in distinct] for kind in FOCUS_ATTRIBUTE},
        {
            kind: [partial(builder.change_attribute, edit.kind, edit.reference, edit.target) for edit in edits]
            for kind, edits in changes.items()
        },
        {kind: [partial(builder.focus_object, kind, one) for one in distinct] for kind in FOCUS_OBJECT},
        {"role": [partial(builder.change_object, edit.reference, edit.target) for edit in roles]},
    )
    rows = [row for plan in plans for row in _draw(plan, per_condition, builder.random)]
    rows.sort(key=lambda row: row["query_id"])
    return pa.Table.from_pylist(rows, schema=schemas.QUERIES)


def _draw(plan: dict[str, list[Callable[[], dict | None]]], count: int, random_state: random.Random) -> Iterator[dict]:
    """Call the plan's makers, the kinds in turn, until `count` of them have given a query."""
    queues = [random_state.sample(makers, len(makers)) for _, makers in sorted(plan.items())]
    made = 0
    while made < count and any(queues):
        for queue in queues:
            row = None
            while queue and row is None:
                row = queue.pop()()
            if row is not None and made < count:
                made += 1
                yield row
