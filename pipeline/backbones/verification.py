"""What the small reranker is trained on: questions, each with images that answer it and near misses.

A near miss is the reference itself, the target of another edit of it, or a character whose caption lies close to the
target's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifacts import ShardSet
from pipeline.backbones.corpus import EDITS_A_KIND, reworded

NEAR = 24
"""Characters with the closest captions."""
SIBLINGS = 12
"""Targets of other edits of the reference, at most."""


@dataclass(frozen=True)
class Question:
    """A reference and a modification, and characters by their numbers in the corpus."""

    reference: int
    modification: str
    right: tuple[int, ...]
    """Those that answer it."""
    wrong: tuple[int, ...]
    """Near misses."""


def read_questions(
    triplets: str | Path, codes: Sequence[str], captions: np.ndarray, fillers: list[str]
) -> list[Question]:
    """Make questions of the training triplets, EDITS_A_KIND of every kind for a reference.

    Args:
        triplets: The table of triplets.
        codes: The corpus' characters.
        captions: [C, d] of unit length: their captions.
        fillers: Words that may stand around a modification, which are drawn for three in four of them.

    Returns:
        The questions, by reference and kind.
    """
    number_of = {code: number for number, code in enumerate(codes)}
    targets: dict[tuple[int, str], dict[str, set[int]]] = {}
    for row in ShardSet.open(triplets).table().to_pylist():
        reference, target = (number_of.get(row[name].split("/")[-1]) for name in ("reference_id", "target_id"))
        if reference is not None and target is not None:
            asked = targets.setdefault((reference, row["triplet_id"].split("/")[0]), {})
            asked.setdefault(row["instruction"], set()).add(target)
    near = _nearest(captions, NEAR)
    questions = []
    for (reference, kind), asked in sorted(targets.items()):
        state = random.Random(f"questions/{codes[reference]}/{kind}")
        everything = sorted(set().union(*asked.values()))
        for place, modification in enumerate(state.choices(sorted(asked), k=EDITS_A_KIND)):
            right = asked[modification]
            siblings = state.sample(everything, min(SIBLINGS, len(everything)))
            close = [number for target in sorted(right) for number in near[target]]
            wrong = dict.fromkeys(one for one in (reference, *siblings, *close) if one not in right)
            text = reworded(modification, fillers, state) if place % 4 else modification
            questions.append(Question(reference, text, tuple(sorted(right)), tuple(wrong)))
    return questions


def _nearest(vectors: np.ndarray, count: int) -> np.ndarray:
    """The `count` nearest other rows of each row of [C, d], the nearest first."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]
