"""What the stage `rerank` writes of one benchmark: ranked lists in their new order, and what that took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import write_json
from pipeline.config import Params, as_dict
from pipeline.encoders.identity import mllm_identity
from pipeline.encoders.image_source import ImageTable
from pipeline.rerank.verify import Reranker, reranked
from pipeline.retrieval import Query, read_queries, read_rankings, write_rankings
from pipeline.retrieval.benchmarks import QUERY_SETS, BenchmarkFolder
from pipeline.retrieval.rankings import Ranking

COST = "cost.json"
"""Method -> the pairs that were verified for its answers to `queries`, and the seconds that they took."""


@dataclass(frozen=True)
class BenchmarkReranking:
    """Verifies the answers to one benchmark."""

    params: Params
    benchmark: BenchmarkFolder
    retrieved: Path
    """What the stage `retrieve` has written of it."""
    out: Path
    """Gets `rankings/<method>`, further query sets beside it, `submissions` and `COST`."""

    def run(self, reranker: Reranker) -> None:
        """Rerank all query sets of all methods.

        Args:
            reranker: Verifies.

        Raises:
            ArtifactError: A method has no ranked lists.
        """
        images, cost = ImageTable(self.benchmark.images), {}
        for query_set in self.benchmark.query_sets:
            queries = read_queries(self.benchmark.path / query_set)
            for method in self.params.rerank.methods:
                start = time.perf_counter()
                pairs = self._rerank(reranker, query_set, queries, method, images)
                if query_set == "queries":
                    cost[method] = {
                        "queries": len(queries),
                        "pairs": pairs,
                        "seconds": round(time.perf_counter() - start, 3),
                    }
        write_json(self.out / COST, cost)

    def _rerank(self, reranker: Reranker, query_set: str, queries: list[Query], method: str, images: ImageTable) -> int:
        """Rerank one method's answers to one query set. Returns how many pairs were verified."""
        found = read_rankings(self.retrieved / QUERY_SETS[query_set] / method)
        rankings, top = found.aligned(queries), self.params.rerank.top
        asked = [verified(ranking, top) for ranking in rankings]
        yes = reranker.probabilities(queries, asked, images, images)
        rows = [
            reranked(ranking, dict(zip(ids, values.tolist(), strict=True)), top, self.params.rerank.weight)
            for ranking, ids, values in zip(rankings, asked, yes, strict=True)
        ]
        made_by: dict[str, Any] = {"rerank": as_dict(self.params.rerank)} | mllm_identity(reranker.params)
        write_rankings(self.out / QUERY_SETS[query_set] / method, method, rows, found.identity | made_by)
        if not queries[0].target_ids:
            self.benchmark.benchmark.write_submissions(self.out / "submissions", method, queries, rows)
        return sum(map(len, asked))


def verified(ranking: Ranking, top: int) -> list[str]:
    """The images that are verified for a query: the first `top`, and its subset."""
    return list(dict.fromkeys((*ranking.ranked_ids[:top], *ranking.subset_ranked_ids)))
