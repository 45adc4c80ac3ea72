"""The benchmarks' metrics as pure functions of ranked ids; everything in percent.

Rankings and targets are parallel sequences, one entry a query, ranked lists best first and without
repetitions. Where a protocol knows one target, it is the first of the query's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Ids = Sequence[Sequence[str]]
Scores = dict[str, float]

RECALL_KS = (1, 5, 10, 50)
SUBSET_KS = (1, 2, 3)
MAP_KS = (5, 10, 25, 50)
MEAN = "mean"


def hits(rankings: Ids, targets: Ids, k: int, any_target: bool = True) -> np.ndarray:
    """Bool [Q]: whether one of the query's targets (else: its first) is among the first k."""
    _check(rankings, targets)
    wanted = targets if any_target else [ids[:1] for ids in targets]
    return np.array(
        [not set(ids).isdisjoint(ranked[:k]) for ranked, ids in zip(rankings, wanted, strict=True)], dtype=bool
    )


def recall(rankings: Ids, targets: Ids, ks: Sequence[int] = RECALL_KS, any_target: bool = True) -> Scores:
    """R@K over all queries."""
    return {f"R@{k}": 100 * float(hits(rankings, targets, k, any_target).mean()) for k in ks}


def recall_by_category(
    rankings: Ids,
    targets: Ids,
    categories: Sequence[str],
    ks: Sequence[int] = RECALL_KS,
    any_target: bool = True,
) -> dict[str, Scores]:
    """FashionIQ's shape: R@K a category (sorted), and the plain mean over categories under `mean`."""
    result = {
        category: recall([rankings[i] for i in rows], [targets[i] for i in rows], ks, any_target)
        for category, rows in _rows_by_name(categories, len(rankings)).items()
    }
    return {**result, MEAN: _mean(list(result.values()))}


def cirr(
    rankings: Ids,
    targets: Ids,
    references: Sequence[str],
    subset_rankings: Ids | None = None,
    ks: Sequence[int] = RECALL_KS,
    subset_ks: Sequence[int] = SUBSET_KS,
) -> Scores:
    """CIRR's shape: R@K of the first target with the reference removed, and R_subset@K within the subset."""
    result = recall(_without(rankings, references), targets, ks, any_target=False)
    if subset_rankings is not None:
        within = recall(_without(subset_rankings, references), targets, subset_ks, any_target=False)
        result |= {f"R_subset@{k}": within[f"R@{k}"] for k in subset_ks}
    return result


def average_precision(ranked: Sequence[str], targets: Sequence[str], k: int) -> float:
    """AP@K, at most 1: precision at each target among the first K, over min(K, number of targets)."""
    wanted, found, total = set(targets), 0, 0.0
    for rank, name in enumerate(ranked[:k], start=1):
        if name in wanted:
            found += 1
            total += found / rank
    return total / min(k, len(wanted))


def circo(rankings: Ids, targets: Ids, ks: Sequence[int] = MAP_KS) -> Scores:
    """CIRCO's shape: mAP@K over all targets."""
    _check(rankings, targets)
    return {
        f"mAP@{k}": 100
        * float(np.mean([average_precision(ranked, ids, k) for ranked, ids in zip(rankings, targets, strict=True)]))
        for k in ks
    }


def genecis(
    subset_rankings: Ids, targets: Ids, tasks: Sequence[str], ks: Sequence[int] = SUBSET_KS
) -> dict[str, Scores]:
    """GeneCIS' shape: R@K of the first target in each query's own small gallery, by task and averaged."""
    return recall_by_category(subset_rankings, targets, tasks, ks, any_target=False)


def _check(rankings: Ids, targets: Ids) -> None:
    if len(rankings) != len(targets):
        raise ValueError(f"{len(rankings)} ranked lists for {len(targets)} queries")
    if not len(targets):
        raise ValueError("no queries to score")
    for row, ids in enumerate(targets):
        if not len(ids):
            raise ValueError(f"query {row} has no target")


def _rows_by_name(names: Sequence[str], expected: int) -> dict[str, list[int]]:
    if len(names) != expected:
        raise ValueError(f"{len(names)} categories for {expected} queries")
    if MEAN in names:
        raise ValueError(f"a category cannot be called {MEAN!r}")
    rows: dict[str, list[int]] = {name: [] for name in sorted(set(names))}
    for row, name in enumerate(names):
        rows[name].append(row)
    return rows


def _mean(scores: Sequence[Scores]) -> Scores:
    return {key: float(np.mean([entry[key] for entry in scores])) for key in (scores[0] if scores else {})}


def _without(rankings: Ids, references: Sequence[str]) -> Ids:
    if len(references) != len(rankings):
        raise ValueError(f"{len(references)} references for {len(rankings)} ranked lists")
    return [
        [name for name in ranked if name != reference] for ranked, reference in zip(rankings, references, strict=True)
    ]
