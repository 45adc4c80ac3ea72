"""Which queries a reader sees."""

from __future__ import annotations

import random

from pipeline.report.metrics import INTERVAL_K, Answers
from pipeline.report.names import FEATURED


def featured(answers: Answers) -> list[str]:
    """The methods that the pictures are about: the papers' two, else the last row."""
    return [method for method in FEATURED if method in answers.by_method] or list(answers.by_method)[-1:]


def sample_queries(answers: Answers, per_kind: int, seed: int) -> list[int]:
    """Rows of up to `per_kind` queries of every kind, half of them hits of the first featured method and half misses.

    A kind with too few of the one is filled with the other. Drawn by the seed, in the kinds' order.
    """
    hit = answers.hits(featured(answers)[0], INTERVAL_K)
    rows = []
    for kind, members in _by_kind(answers).items():
        rng = random.Random(f"{seed}/{kind}")
        shuffled = rng.sample(members, len(members))
        hits, misses = [row for row in shuffled if hit[row]], [row for row in shuffled if not hit[row]]
        wanted = min(per_kind, len(members))
        take = min(len(hits), max((wanted + 1) // 2, wanted - len(misses)))
        rows += hits[:take] + misses[: wanted - take]
    return rows


def figure_queries(answers: Answers, rows: int, seed: int) -> list[int]:
    """One query of each of up to `rows` kinds, whatever the methods make of it."""
    by_kind = _by_kind(answers)
    return [random.Random(f"{seed}/figure/{kind}").choice(members) for kind, members in list(by_kind.items())[:rows]]


def _by_kind(answers: Answers) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {kind: [] for kind in sorted(set(answers.kinds))}
    for row, kind in enumerate(answers.kinds):
        rows[kind].append(row)
    return rows
