"""CIRR's protocol: recall with the reference removed, and recall within the group of six.

Its server (https://cirr.cecs.anu.edu.au) takes one file of 50 names a query for recall and one of 3 for
recall within the subset, keyed by pair id, each with its `version` and `metric`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.retrieval import protocols
from pipeline.retrieval.benchmarks.interface import Benchmark, GroundTruth
from pipeline.retrieval.protocols import RECALL_KS, SUBSET_KS, Ids, Scores
from pipeline.retrieval.submissions import DEPTH, SUBSET_DEPTH, Lists, PredictionError, first_of_each

RECALL, RECALL_SUBSET = "recall", "recall_subset"
VERSION = "rc2"


class Cirr(Benchmark):
    """A group a query, whose other five members are its subset."""

    name = "cirr"
    title = "CIRR"
    scores_groups = True
    server_split = "test1"

    def score(self, truth: GroundTruth, ranked: Ids = (), subset_ranked: Ids = ()) -> dict[str, Any]:
        """R@1/5/10/50 of `ranked`, R_subset@1/2/3 of `subset_ranked`, in which only the group's members count."""
        scores: Scores = {}
        if len(ranked):
            depth = max(RECALL_KS) + 1  # the reference may be among them
            scores |= protocols.cirr([ids[:depth] for ids in ranked], truth.targets, truth.references)
        if len(subset_ranked):
            members = [frozenset(subset) for subset in truth.subsets]
            within = [
                [name for name in ids if name in group] for ids, group in zip(subset_ranked, members, strict=True)
            ]
            found = protocols.recall(within, truth.targets, SUBSET_KS, any_target=False)
            scores |= {f"R_subset@{k}": found[f"R@{k}"] for k in SUBSET_KS}
        return dict(scores)

    def remark(self, scores: Mapping[str, Any]) -> str:
        if any(key.startswith("R_subset@") for key in scores):
            return ""
        return "no R_subset: the lists do not hold all members of every group"

    def read_header(self, content: dict[str, Any]) -> bool:
        """A file of the server's has `version` and `metric`; a plain file has neither."""
        if "metric" not in content and "version" not in content:
            return False
        metric, version = content.pop("metric", None), content.pop("version", None)
        if metric not in (RECALL, RECALL_SUBSET) or version != VERSION:
            raise PredictionError(
                f"version and metric are {version!r} and {metric!r}, not {VERSION!r} and {RECALL} or {RECALL_SUBSET}"
            )
        return metric == RECALL_SUBSET

    def server_files(
        self, name: str, ranked: Lists, subset_ranked: Lists, references: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """Two files; the reference is no answer."""
        files = {}
        for metric, lists, depth in ((RECALL, ranked, DEPTH), (RECALL_SUBSET, subset_ranked, SUBSET_DEPTH)):
            without = {
                query_id: [image_id for image_id in ids if image_id != references[query_id]]
                for query_id, ids in lists.items()
            }
            files[f"{name}.{metric}.json"] = {
                "version": VERSION,
                "metric": metric,
                **first_of_each(without, depth),
            }
        return files
