"""Benchmark queries as retrieval sees them: ids, texts and categories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.artifacts import ArtifactError, ShardSet


@dataclass(frozen=True)
class Query:
    """One row of `schemas.QUERIES`."""

    query_id: str
    reference_id: str
    modifications: tuple[str, ...]
    target_ids: tuple[str, ...]
    """Every fitting image. The first is *the* target where a protocol knows only one.

    Empty: only a server knows them."""
    subset_ids: tuple[str, ...] = ()
    category: str = ""
    shared_concept: str = ""
    alternatives: tuple[str, ...] = ()
    """Other wordings of the whole modification; a query is answered by the mean over all of them."""

    @property
    def text(self) -> str:
        """The modifications as one text."""
        return ", ".join(self.modifications)

    def worded(self, number: int) -> Query:
        """The same query in one of its wordings alone, 0 being `text`."""
        return self if number == 0 else replace(self, modifications=(self.alternatives[number - 1],), alternatives=())


def read_queries(folder: str | Path) -> list[Query]:
    """All queries of a benchmark, in their order.

    Args:
        folder: A shard set of `schemas.QUERIES`.

    Raises:
        ArtifactError: A query occurs twice, or lacks a target though the table's identity does not say that
            the targets are private; names the query.
    """
    queries = []
    seen: set[str] = set()
    shards = ShardSet.open(folder)
    for row in shards.table().to_pylist():
        texts = tuple(row["modifications"] or ())
        alternatives = texts[1:] if shards.identity.get("wordings") else ()
        query = Query(
            row["query_id"],
            row["reference_id"],
            texts[: len(texts) - len(alternatives)],
            tuple(row["target_ids"] or ()),
            tuple(row["subset_ids"] or ()),
            row["category"] or "",
            row["shared_concept"] or "",
            alternatives,
        )
        if not query.target_ids and not shards.identity.get("private_targets"):
            raise ArtifactError(f"{folder}: query {query.query_id!r} has no target")
        if query.query_id in seen:
            raise ArtifactError(f"{folder}: query {query.query_id!r} occurs twice")
        seen.add(query.query_id)
        queries.append(query)
    return queries
