"""GeneCIS' protocol: recall in each query's own small gallery, by task and averaged over groups of tasks."""

from __future__ import annotations

from typing import Any

from pipeline.retrieval import protocols
from pipeline.retrieval.benchmarks.interface import Benchmark, GroundTruth
from pipeline.retrieval.protocols import MEAN, Ids

GROUPS = {
    "focus": ("focus_attribute", "focus_object"),
    "change": ("change_attribute", "change_object"),
    "attribute": ("focus_attribute", "change_attribute"),
    "object": ("focus_object", "change_object"),
}
"""Average -> the two tasks that it is over."""


class GeneCIS(Benchmark):
    """A small gallery a query, the target among it."""

    name = "genecis"
    title = "GeneCIS"
    own_galleries = True
    id_types = (int, str)

    def score(self, truth: GroundTruth, ranked: Ids = (), subset_ranked: Ids = ()) -> dict[str, Any]:
        """Task -> R@1/2/3; then the average of every group whose two tasks are there, and `mean` over the tasks."""
        by_task = protocols.genecis(subset_ranked, truth.targets, truth.categories)
        mean = by_task.pop(MEAN)
        averages = {
            group: {key: (by_task[one][key] + by_task[other][key]) / 2 for key in mean}
            for group, (one, other) in GROUPS.items()
            if one in by_task and other in by_task
        }
        return {**by_task, **averages, MEAN: mean}
