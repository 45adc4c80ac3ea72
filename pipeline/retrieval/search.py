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
    """Search the gallery and rank each query's subset.

    Args:
        index: The gallery's index.
        queries: Q queries.
        vectors: [Q, d], or [Q, H, d] for H hypotheses a query (see `Index.search`).
        top_k: Images a ranked list has.
        fuse: How the hypotheses' scores become one.
        exclude_reference: Whether the gallery is searched without the reference. It is never in the subset.

    Raises:
        ValueError: There is not one vector a query.
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
    """Each query's best score among its targets, and among the other images of its ranked list.

    Args:
        index: The gallery's index.
        method: The method's name.
        queries: Q queries.
        vectors: [Q, d] or [Q, H, d].
        rankings: The queries' ranked lists.
        fuse: How the hypotheses' scores become one.

    Returns:
        Rows of `schemas.SIMILARITIES`; `other` is None where the list holds targets alone.
    """
    rows = []
    for query, vector, ranking in zip(queries, vectors, rankings, strict=True):
        target = float(index.scores_for(vector, query.target_ids, fuse).max())
        scored = zip(ranking.ranked_ids, ranking.scores, strict=True)
        other = next((score for name, score in scored if name not in query.target_ids), None)
        rows.append({"query_id": query.query_id, "method": method, "target": target, "other": other})
    return rows
