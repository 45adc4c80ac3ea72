"""Edit triplets for training: (reference, target, instruction, description of the target)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import pyarrow as pa

from pipeline.artifacts import schemas
from pipeline.sources.emoji.captions import short_caption
from pipeline.sources.emoji.cldr import Emoji
from pipeline.sources.emoji.edits import KINDS, balanced, possible_edits, wording_fields
from pipeline.sources.emoji.nearness import shared_concept
from pipeline.sources.emoji.wordings import TRAINING


def build_triplets(
    emoji: Iterable[Emoji], images: Mapping[str, Mapping[str, bytes]], count: int, seed: int
) -> pa.Table:
    """Up to `count` triplets, as even over the kinds as can be; both sides by one team.

    `images[team][code]` are the encoded images that training may see. Each edit gets one
    training wording, drawn by `seed`.
    """
    emoji = list(emoji)
    edits = {
        kind: [
            (team, edit)
            for team, drawn in sorted(images.items())
            for edit in possible_edits((one for one in emoji if one.code in drawn), kind, drawn)
        ]
        for kind in KINDS
    }
    random_state = random.Random(f"triplets/{seed}")
    rows = []
    for kind, chosen in balanced(edits, count, random_state).items():
        for team, edit in chosen:
            reference_id, target_id = f"{team}/{edit.reference.code}", f"{team}/{edit.target.code}"
            wording = random_state.choice(TRAINING[kind])
            rows.append(
                {
                    "triplet_id": f"{kind}/{reference_id}/{edit.target.code}",
                    "reference_id": reference_id,
                    "target_id": target_id,
                    "instruction": wording.format(**wording_fields(edit.target)),
                    "target_description": short_caption(edit.target),
                    "shared_concept": shared_concept(edit.reference),
                }
            )
    rows.sort(key=lambda row: row["triplet_id"])
    return pa.Table.from_pylist(rows, schema=schemas.TRIPLETS)
