"""The order of verified answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mixed_scores(scores: Sequence[float], probabilities: Sequence[float], weight: float) -> np.ndarray:
    """What answers are ordered by.

    s' = (1 - w) (s - min) / (max - min) + w P(yes), with min and max over the K verified answers. Where all K have one
    score, only P(yes) tells them apart.

    Args:
        scores: The first scores s of all N answers, the best first.
        probabilities: P(yes) of the first K.
        weight: w, in [0, 1].

    Returns:
        float64 [N]. Answers after the first K have P(yes) = 0, and no higher score than any of these.
    """
    first, count = np.asarray(scores, dtype=np.float64), len(probabilities)
    high, low = first[:count].max(), first[:count].min()
    scaled = (first - low) / (high - low if high > low else 1.0)
    yes = np.zeros_like(scaled)
    yes[:count] = probabilities
    return (1.0 - weight) * scaled + weight * yes


def new_order(mixed: np.ndarray) -> list[int]:
    """The places of N answers, the best first. Equal ones stay in their order."""
    return np.argsort(-mixed, kind="stable").tolist()
