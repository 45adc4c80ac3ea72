"""Emoji-CIR, this project's own benchmark: recall by query kind, and the forms of three public protocols."""

from __future__ import annotations

from typing import Any

from pipeline.retrieval import protocols
from pipeline.retrieval.benchmarks.interface import Benchmark, GroundTruth
from pipeline.retrieval.protocols import Ids, Scores

CIRR, CIRCO, GENECIS = "cirr", "circo", "genecis"
PROTOCOLS = (CIRR, CIRCO, GENECIS)
"""Keys of `score` beside the query kinds: the same answers in the form of a public protocol."""


class EmojiCir(Benchmark):
    """Several targets a query, and groups of relatives as subsets."""

    name = "emoji_cir"
    title = "Emoji-CIR"
    public = False
    labels = {"emoji_cir": title, "emoji_cir_val": f"{title}, validation split"}

    def score(self, truth: GroundTruth, ranked: Ids = (), subset_ranked: Ids = ()) -> dict[str, Any]:
        """Query kind, `mean`, `cirr` and `circo` -> scores. Groups count where every query has one."""
        scores: dict[str, Any] = dict(protocols.recall_by_category(ranked, truth.targets, truth.categories))
        within = subset_ranked if all(truth.subsets) else None
        scores[CIRR] = protocols.cirr(ranked, truth.targets, truth.references, within)
        scores[CIRCO] = protocols.circo(ranked, truth.targets)
        return scores

    def score_small_galleries(self, truth: GroundTruth, subset_ranked: Ids) -> dict[str, dict[str, Scores]]:
        """`genecis` -> task and `mean` -> scores, for the query set whose queries have small galleries of their own."""
        return {GENECIS: protocols.genecis(subset_ranked, truth.targets, truth.categories)}
