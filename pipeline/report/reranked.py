"""Recall before and after the first answers were verified, and what that took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, read_json
from pipeline.report.metrics import RankedQueries, benchmark_metrics
from pipeline.report.names import describe
from pipeline.report.tables import Cell, Row, Table
from pipeline.rerank.outputs import COST
from pipeline.retrieval.benchmarks import QUERY_SETS
from pipeline.retrieval.protocols import MEAN

SHOWN = ("R@1", "R@5", "R@10")


@dataclass(frozen=True)
class Reranked:
    """One benchmark's verified answers."""

    metrics: dict[str, dict[str, Any]]
    """Method -> `before`, `after` (the mean recalls over query kinds, in percent), `pairs` and `seconds` a query."""


def read_reranked(folder: Path, queries: Path, before: Mapping[str, Mapping[str, Any]]) -> Reranked:
    """Score what the stage `rerank` has written of a benchmark.

    Args:
        folder: Where it is.
        queries: The benchmark's queries.
        before: Method -> the metrics of its answers as they were.

    Returns:
        The scores.

    Raises:
        ArtifactError: A method was verified that has no answers.
    """
    after, cost = (
        benchmark_metrics(RankedQueries.read(queries, folder / QUERY_SETS["queries"])),
        read_json(folder / COST),
    )
    if unknown := sorted(set(cost) - set(before)):
        raise ArtifactError(f"{folder}: {unknown[0]} was verified and has no answers; `dvc repro` makes both anew")
    return Reranked(
        {
            method: {
                "before": before[method][MEAN],
                "after": after[method][MEAN],
                **{name: round(taken[name] / taken["queries"], 4) for name in ("pairs", "seconds")},
            }
            for method, taken in cost.items()
        }
    )


def reranking_table(benchmark: str, found: Reranked) -> Table:
    """The table of one benchmark.

    Args:
        benchmark: Its name.
        found: Its scores.

    Returns:
        A row a method: each recall before and after, and the pairs and seconds of a query.
    """
    columns = [title for name in SHOWN for title in (f"Mean {name}", f"{name} verified")]
    rows = []
    for method, scores in found.metrics.items():
        name = describe(method)
        recalls = [Cell(f"{scores[when][key]:.1f}") for key in SHOWN for when in ("before", "after")]
        taken = [Cell(f"{scores['pairs']:.0f}"), Cell(f"{scores['seconds']:.2f}")]
        rows.append(Row(method, name.label, name.note, "", (*recalls, *taken)))
    caption = "Recall before and after a multimodal LLM verified the first answers, in percent, and what a query took."
    return Table(f"Reranking, {benchmark}", caption, (*columns, "Pairs a query", "Seconds a query"), tuple(rows))
