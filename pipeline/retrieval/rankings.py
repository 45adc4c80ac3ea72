"""Ranked lists on disk: one shard set of `schemas.RANKINGS` a method and benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.artifacts import ArtifactError, Manifest, ShardSet, schemas, write_table
from pipeline.retrieval.queries import Query


@dataclass(frozen=True)
class Ranking:
    """One query's answer, best first."""

    query_id: str
    ranked_ids: tuple[str, ...]
    scores: tuple[float, ...]
    subset_ranked_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rankings:
    """One method's answers to a benchmark."""

    method: str
    by_query: dict[str, Ranking]
    identity: dict[str, Any]

    def aligned(self, queries: Sequence[Query]) -> list[Ranking]:
        """The answers in the order of `queries`.

        Raises:
            ArtifactError: Queries have none; says how many and names the first.
        """
        missing = [query.query_id for query in queries if query.query_id not in self.by_query]
        if missing:
            raise ArtifactError(
                f"rankings of {self.method}: {len(missing)} queries have no ranked list, the first is {missing[0]!r}"
            )
        return [self.by_query[query.query_id] for query in queries]


def write_rankings(folder: str | Path, method: str, rankings: Iterable[Ranking], identity: dict[str, Any]) -> Manifest:
    """Write one method's ranked lists, atomically."""
    rows = [
        {
            "query_id": ranking.query_id,
            "method": method,
            "ranked_ids": list(ranking.ranked_ids),
            "scores": list(ranking.scores),
            "subset_ranked_ids": list(ranking.subset_ranked_ids),
        }
        for ranking in rankings
    ]
    return write_table(folder, pa.Table.from_pylist(rows, schema=schemas.RANKINGS), identity)


def read_rankings(folder: str | Path) -> Rankings:
    """Read one method's ranked lists.

    Args:
        folder: A shard set of `schemas.RANKINGS`.

    Raises:
        ArtifactError: The table is empty or of two methods, a query occurs twice, a list names an id twice, or
            has not one score an id.
    """
    shards = ShardSet.open(folder)
    method, by_query = None, {}
    for row in shards.table().to_pylist():
        query_id = row["query_id"]
        ranking = Ranking(
            query_id, tuple(row["ranked_ids"]), tuple(row["scores"]), tuple(row["subset_ranked_ids"] or ())
        )
        method = method or row["method"]
        if row["method"] != method:
            raise ArtifactError(
                f"{folder}: query {query_id!r} is of method {row['method']!r}, the others of {method!r}"
            )
        if query_id in by_query:
            raise ArtifactError(f"{folder}: query {query_id!r} occurs twice")
        if len(ranking.ranked_ids) != len(ranking.scores):
            raise ArtifactError(
                f"{folder}: query {query_id!r} has {len(ranking.ranked_ids)} ids and {len(ranking.scores)} scores"
            )
        for ids in (ranking.ranked_ids, ranking.subset_ranked_ids):
            if len(set(ids)) != len(ids):
                raise ArtifactError(f"{folder}: query {query_id!r} names an image twice")
        by_query[query_id] = ranking
    if method is None:
        raise ArtifactError(f"{folder}: no ranked lists")
    return Rankings(method, by_query, shards.identity)
