"""FashionIQ's protocol: recall of the target within the category's gallery, the reference left in."""

from __future__ import annotations

from typing import Any

from pipeline.retrieval import protocols
from pipeline.retrieval.benchmarks.interface import Benchmark, GroundTruth
from pipeline.retrieval.protocols import Ids

KS = (10, 50)


class FashionIQ(Benchmark):
    """A gallery a category (its original split)."""

    name = "fashioniq"
    title = "FashionIQ"
    excludes_reference = False

    def score(self, truth: GroundTruth, ranked: Ids = (), subset_ranked: Ids = ()) -> dict[str, Any]:
        """Category and `mean`, the plain mean over categories -> R@10, R@50."""
        return dict(protocols.recall_by_category(ranked, truth.targets, truth.categories, KS, any_target=False))
