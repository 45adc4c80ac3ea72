"""Benchmark queries: (reference, modification, targets), written from one team's images.

Recipe. For each kind of edit (`edits.KINDS`), list all edits among the eligible emoji, draw up to
`per_kind` of them by the seed, and word each with a wording of the benchmark's own set. One query
in four is *open* where its kind allows: its wording leaves one more attribute open, and all images
that fit are targets. The first target is the edit's own, which shares everything else with the
reference; the others follow by distance. Images drawn exactly like a target are targets too, and
images drawn exactly like the reference never are. The subset is the first target and the five
gallery images nearest to the reference (`nearness.distance`) that are neither reference nor target.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.sources.emoji.cldr import Emoji
from pipeline.sources.emoji.edits import KINDS, Edit, key_without, possible_edits, value_of, wording_fields
from pipeline.sources.emoji.nearness import distance, nearest, shared_concept
from pipeline.sources.emoji.wordings import RELAXED

OPEN_SHARE = 0.25
SUBSET_SIZE = 6

Wordings = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Gallery:
    """One team's emoji and their encoded images by code."""

    team: str
    emoji: tuple[Emoji, ...]
    images: Mapping[str, bytes]

    def image_id(self, emoji: Emoji) -> str:
        return f"{self.team}/{emoji.code}"

    def alike(self) -> dict[bytes, list[Emoji]]:
        """Emoji by image: more than one where the team drew them exactly alike."""
        groups: dict[bytes, list[Emoji]] = defaultdict(list)
        for one in self.emoji:
            groups[self.images[one.code]].append(one)
        return groups


def build_queries(
    gallery: Gallery, eligible: Iterable[Emoji], per_kind: int, wordings: Wordings, open_wordings: Wordings, seed: int
) -> pa.Table:
    """Queries whose references and targets are among `eligible`; subsets from the whole gallery."""
    eligible = list(eligible)
    alike = gallery.alike()
    rows = []
    for kind in KINDS:
        random_state = random.Random(f"queries/{gallery.team}/{kind}/{seed}")
        edits = possible_edits(eligible, kind, gallery.images)
        fitting = _open_targets(eligible, kind)
        used: Counter[str] = Counter()
        for edit in random_state.sample(edits, min(per_kind, len(edits))):
            candidates = [edit.target]
            # Nothing is left open by "any gender" where the reference has no gender to begin with.
            can_open = kind in open_wordings and value_of(edit.reference, RELAXED[kind]) is not None
            is_open = can_open and random_state.random() < OPEN_SHARE
            if is_open:
                candidates = fitting(edit)
            wording = random_state.choice((open_wordings if is_open else wordings)[kind])
            targets = order_targets(edit, candidates, gallery, alike)
            number = used[edit.reference.code]
            used[edit.reference.code] += 1
            rows.append(
                {
                    "query_id": f"{kind}/{edit.reference.code}/{number}",
                    "reference_id": gallery.image_id(edit.reference),
                    "modifications": [wording.format(**wording_fields(edit.target))],
                    "target_ids": [gallery.image_id(target) for target in targets],
                    "subset_ids": _subset(edit, targets, gallery),
                    "category": kind,
                    "shared_concept": shared_concept(edit.reference),
                }
            )
    rows.sort(key=lambda row: str(row["query_id"]))
    return pa.Table.from_pylist(rows, schema=schemas.QUERIES)


def _open_targets(eligible: list[Emoji], kind: str) -> Callable[[Edit], list[Emoji]]:
    """A look-up of everything that fits an edit of `kind` once its relaxed attribute is left open."""
    if kind not in RELAXED:
        return lambda edit: [edit.target]

    def key(emoji: Emoji) -> tuple:
        return (value_of(emoji, kind), key_without(emoji, kind, RELAXED[kind]))

    groups: dict[tuple, list[Emoji]] = defaultdict(list)
    for one in eligible:
        groups[key(one)].append(one)
    return lambda edit: groups[key(edit.target)]


def order_targets(
    edit: Edit, candidates: list[Emoji], gallery: Gallery, alike: Mapping[bytes, list[Emoji]]
) -> list[Emoji]:
    """The edit's own target, then the other candidates and all look-alikes by distance."""
    images = gallery.images
    found = {twin.code: twin for one in candidates for twin in alike[images[one.code]]}
    others = [
        one
        for one in found.values()
        if one.code != edit.target.code and images[one.code] != images[edit.reference.code]
    ]
    return [edit.target, *sorted(others, key=lambda one: (distance(edit.reference, one), one.code))]


def _subset(edit: Edit, targets: list[Emoji], gallery: Gallery) -> list[str]:
    left_out = {gallery.images[one.code] for one in (edit.reference, *targets)}
    others = (one for one in gallery.emoji if gallery.images[one.code] not in left_out)
    family = [edit.target, *nearest(edit.reference, others, SUBSET_SIZE - 1)]
    return sorted(gallery.image_id(one) for one in family)
