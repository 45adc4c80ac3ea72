"""Which queries a reader sees."""

from __future__ import annotations

import random

from pipeline.report.metrics import RankedQueries
from pipeline.report.names import is_featured, ordered


def featured(answers: RankedQueries) -> list[str]:
    """The methods that the images are about: the papers' two, else the last row."""
    return [method for method in ordered(answers.by_method) if is_featured(method)] or list(answers.by_method)[-1:]


def mixed_order(answers: RankedQueries, seed: int) -> list[int]:
    """All rows, shuffled within their kind by the seed and dealt kind by kind.

    Every beginning is a fair sample so.
    """
    shuffled = [
        random.Random(f"{seed}/{kind}").sample(members, len(members)) for kind, members in _by_kind(answers).items()
    ]
    longest = max(len(members) for members in shuffled)
    return [members[turn] for turn in range(longest) for members in shuffled if turn < len(members)]


def figure_queries(answers: RankedQueries, rows: int, seed: int) -> list[int]:
    """One query of each of up to `rows` kinds, whatever the methods make of it."""
    by_kind = _by_kind(answers)
    return [random.Random(f"{seed}/figure/{kind}").choice(members) for kind, members in list(by_kind.items())[:rows]]


def _by_kind(answers: RankedQueries) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {kind: [] for kind in sorted(set(answers.kinds))}
    for row, kind in enumerate(answers.kinds):
        rows[kind].append(row)
    return rows
