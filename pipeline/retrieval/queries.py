"""Benchmark queries as retrieval sees them: ids, texts and categories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import ArtifactError, ShardSet


@dataclass(frozen=True)
class Query:
    """One row of `schemas.QUERIES`."""

    query_id: str
    reference_id: str
    modifications: tuple[str, ...]
    target_ids: tuple[str, ...]
    """Every fitting image; the first is *the* target where a protocol knows only one."""
    subset_ids: tuple[str, ...] = ()
    category: str = ""
    shared_concept: str = ""

    @property
    def text(self) -> str:
        """The modifications as one text."""
        return ", ".join(self.modifications)


def read_queries(folder: str | Path) -> list[Query]:
    """All queries of a benchmark, in their order. Raises ArtifactError naming a query that is wrong."""
    queries = []
    seen: set[str] = set()
    for row in ShardSet.open(folder).table().to_pylist():
        query = Query(
            row["query_id"], row["reference_id"], tuple(row["modifications"] or ()), tuple(row["target_ids"] or ()),
            tuple(row["subset_ids"] or ()), row["category"] or "", row["shared_concept"] or "",
        )
        if not query.target_ids:
            raise ArtifactError(f"{folder}: query {query.query_id!r} has no target")
        if query.query_id in seen:
            raise ArtifactError(f"{folder}: query {query.query_id!r} occurs twice")
        seen.add(query.query_id)
        queries.append(query)
    return queries
