"""From query vectors to ranked lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.retrieval.index import Index
from pipeline.retrieval.queries import Query
from pipeline.retrieval.rankings import Ranking


def rank_queries(
    index: Index,
    queries: Sequence[Query],
    vectors: np.ndarray,
    top_k: int,
    fuse: str = "mean",
    exclude_reference: bool = True,
) -> list[Ranking]:
    """Search the gallery and rank each query's subset; the reference is never in the subset, and in the gallery as asked.

    `vectors` is [Q, d], or [Q, H, d] for H hypotheses a query (see `Index.search`).
    """
    if len(vectors) != len(queries):
        raise ValueError(f"{len(vectors)} vectors for {len(queries)} queries")
    excluded = [query.reference_id for query in queries] if exclude_reference else None
    ids, scores = index.search(vectors, top_k, exclude=excluded, fuse=fuse)
    rankings = []
    for query, vector, ranked, ranked_scores in zip(queries, vectors, ids, scores, strict=True):
        subset = [name for name in query.subset_ids if name != query.reference_id]
        subset_ranked, _ = index.rank(vector, subset, fuse)
        rankings.append(Ranking(query.query_id, tuple(ranked), tuple(ranked_scores), tuple(subset_ranked)))
    return rankings


def target_similarities(
    index: Index,
    method: str,
    queries: Sequence[Query],
    vectors: np.ndarray,
    rankings: Sequence[Ranking],
    fuse: str = "mean",
) -> list[dict[str, Any]]:
    """Rows of `schemas.SIMILARITIES`: each query's best score among its targets, and among the other images.

    The other images are those of its ranked list; where that holds targets alone, `other` is None.
    """
    rows = []
    for query, vector, ranking in zip(queries, vectors, rankings, strict=True):
        target = float(index.scores_for(vector, query.target_ids, fuse).max())
        scored = zip(ranking.ranked_ids, ranking.scores, strict=True)
        other = next((score for name, score in scored if name not in query.target_ids), None)
        rows.append({"query_id": query.query_id, "method": method, "target": target, "other": other})
    return rows
