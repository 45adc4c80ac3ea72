"""CIRCO's protocol: mean average precision over all targets, the reference left in.

Its server (https://circo.micc.unifi.it) takes one file of 50 image numbers for every query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.retrieval import protocols
from pipeline.retrieval.benchmarks.interface import Benchmark, GroundTruth
from pipeline.retrieval.protocols import MAP_KS, Ids
from pipeline.retrieval.submissions import DEPTH, Lists, first_of_each

ASPECT_K = 10
ASPECTS = f"mAP@{ASPECT_K} by aspect"


class Circo(Benchmark):
    """Several targets a query, and semantic aspects."""

    name = "circo"
    title = "CIRCO"
    excludes_reference = False
    details = frozenset({ASPECTS})
    id_types = (int,)
    server_split = "test"

    def score(self, truth: GroundTruth, ranked: Ids = (), subset_ranked: Ids = ()) -> dict[str, Any]:
        """mAP@5/10/25/50, R@5/10/25/50 of the first target, and the mean AP@10 over the queries of each aspect.

        AP@K is divided by min(K, number of targets). A query may have several aspects.
        """
        scores: dict[str, Any] = {**protocols.circo(ranked, truth.targets)}
        scores |= protocols.recall(ranked, truth.targets, MAP_KS, any_target=False)
        if truth.aspects is not None and any(truth.aspects):
            scores[ASPECTS] = _by_aspect(truth.aspects, ranked, truth.targets)
        return scores

    def server_files(
        self, name: str, ranked: Lists, subset_ranked: Lists, references: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """One file of image numbers."""
        lists = first_of_each(ranked, DEPTH)
        return {f"{name}.json": {query_id: [int(image_id) for image_id in ids] for query_id, ids in lists.items()}}


def _by_aspect(aspects: Ids, ranked: Ids, targets: Ids) -> dict[str, float]:
    """Aspect -> mean AP@10 of its queries, in percent."""
    precisions = [
        protocols.average_precision(ids, wanted, ASPECT_K) for ids, wanted in zip(ranked, targets, strict=True)
    ]
    names = sorted({name for of_query in aspects for name in of_query})
    return {
        name: 100 * float(np.mean([value for value, own in zip(precisions, aspects, strict=True) if name in own]))
        for name in names
    }
