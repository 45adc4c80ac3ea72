"""The public benchmarks' own protocols, over ranked ids; everything in percent.

FashionIQ: R@10 and R@50 of the target within the category's gallery (its original split, the
reference left in), by category and their plain mean. CIRR: R@1/5/10/50 with the reference removed,
R_subset@1/2/3 among the group's other five. CIRCO: mAP@5/10/25/50 over all ground truths, divided
by min(K, number of ground truths), R@K of the first target, and mAP@10 by semantic aspect, the
reference left in. GeneCIS: R@1/2/3 in each query's own gallery, by task, and the averages over focus,
change, attribute, object and all.

**Ties.** A ranked list has none: its order counts. Lists made here break a tie between equal scores
by gallery order, the same way in galleries, groups and small galleries (`Index`), and the gallery
order is that of the official files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.retrieval import protocols
from pipeline.retrieval.protocols import MAP_KS, MEAN, SUBSET_KS, Ids, Scores

FASHIONIQ_KS = (10, 50)
ASPECT_K = 10
ASPECTS = f"mAP@{ASPECT_K} by aspect"
GROUPS = {
    "focus": ("focus_attribute", "focus_object"),
    "change": ("change_attribute", "change_object"),
    "attribute": ("focus_attribute", "change_attribute"),
    "object": ("focus_object", "change_object"),
}


def fashioniq(rankings: Ids, targets: Ids, categories: Sequence[str]) -> dict[str, Scores]:
    """Category and `mean` -> R@10, R@50."""
    return protocols.recall_by_category(rankings, targets, categories, FASHIONIQ_KS, any_target=False)


def cirr(
    rankings: Ids | None,
    subset_rankings: Ids | None,
    targets: Ids,
    references: Sequence[str],
    groups: Ids,
) -> Scores:
    """R@K where there are `rankings`, R_subset@K where there are `subset_rankings`; of these only the group's members count."""
    scores: Scores = {}
    if rankings is not None:
        scores |= protocols.cirr(rankings, targets, references)
    if subset_rankings is not None:
        members = [frozenset(group) for group in groups]
        within = [
            [name for name in ranked if name in group] for ranked, group in zip(subset_rankings, members, strict=True)
        ]
        found = protocols.recall(within, targets, SUBSET_KS, any_target=False)
        scores |= {f"R_subset@{k}": found[f"R@{k}"] for k in SUBSET_KS}
    return scores


def circo(rankings: Ids, targets: Ids, aspects: Ids | None = None) -> dict[str, Any]:
    """mAP@K and R@K, and under `mAP@10 by aspect` the mean over the queries of each aspect (a query has several)."""
    scores: dict[str, Any] = protocols.circo(rankings, targets)
    scores |= protocols.recall(rankings, targets, MAP_KS, any_target=False)
    if aspects is not None and any(aspects):
        precisions = [
            protocols.average_precision(ranked, ids, ASPECT_K) for ranked, ids in zip(rankings, targets, strict=True)
        ]
        names = sorted({name for of_query in aspects for name in of_query})
        scores[ASPECTS] = {
            name: 100 * float(np.mean([value for value, own in zip(precisions, aspects, strict=True) if name in own]))
            for name in names
        }
    return scores


def genecis(subset_rankings: Ids, targets: Ids, tasks: Sequence[str]) -> dict[str, Scores]:
    """Task -> R@1/2/3; then the average of every group whose two tasks are there, and `mean` over the tasks."""
    by_task = protocols.genecis(subset_rankings, targets, tasks)
    mean = by_task.pop(MEAN)
    averages = {
        group: {key: (by_task[one][key] + by_task[other][key]) / 2 for key in mean}
        for group, (one, other) in GROUPS.items()
        if one in by_task and other in by_task
    }
    return {**by_task, **averages, MEAN: mean}
