"""Recall before and after the first answers were verified, and what that took."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, read_json
from pipeline.report.metrics import RankedQueries, benchmark_metrics, rounded
from pipeline.report.names import describe
from pipeline.report.tables import Cell, Row, Table
from pipeline.rerank.outputs import COST
from pipeline.retrieval.benchmarks import QUERY_SETS
from pipeline.retrieval.bootstrap import paired_difference
from pipeline.retrieval.protocols import MEAN

SHOWN = (1, 5, 10)
"""The K of the recalls."""


@dataclass(frozen=True)
class Reranked:
    """One benchmark's verified answers."""

    metrics: dict[str, dict[str, Any]]
    """Method -> `before`, `after` (the mean recalls over query kinds, in percent), `pairs` and `seconds` a query, and
    `change`: recall -> its paired `difference` and that one's 95% interval over queries, `low` and `high`."""


def read_reranked(folder: Path, queries: Path, before: RankedQueries, samples: int, seed: int) -> Reranked:
    """Score what the stage `rerank` has written of a benchmark.

    Args:
        folder: Where it is.
        queries: The benchmark's queries.
        before: The answers as they were.
        samples: How many times the queries are resampled for the intervals.
        seed: Decides what is drawn.

    Returns:
        The scores.

    Raises:
        ArtifactError: A method was verified that has no answers.
    """
    after, cost = RankedQueries.read(queries, folder / QUERY_SETS["queries"]), read_json(folder / COST)
    if unknown := sorted(set(cost) - set(before.by_method)):
        raise ArtifactError(f"{folder}: {unknown[0]} was verified and has no answers; `dvc repro` makes both anew")
    compared = replace(before, by_method={method: before.by_method[method] for method in cost})
    first, second = benchmark_metrics(compared), benchmark_metrics(after)
    return Reranked(
        {
            method: {
                "before": first[method][MEAN],
                "after": second[method][MEAN],
                "change": recall_changes(before, after, method, samples, seed),
                **{name: round(taken[name] / taken["queries"], 4) for name in ("pairs", "seconds")},
            }
            for method, taken in cost.items()
        }
    )


def recall_changes(
    before: RankedQueries, after: RankedQueries, method: str, samples: int, seed: int
) -> dict[str, dict[str, float]]:
    """How far one method's recalls lie higher in a new order of the same queries' answers."""
    changes = {}
    for k in SHOWN:
        found = paired_difference(after.hits(method, k), before.hits(method, k), before.kinds, samples, seed)
        changes[f"R@{k}"] = rounded({"difference": found.estimate, "low": found.low, "high": found.high})
    return changes


def reranking_table(benchmark: str, found: Reranked) -> Table:
    """The table of one benchmark.

    Args:
        benchmark: Its name.
        found: Its scores.

    Returns:
        A row a method: each recall before and after with the difference's interval, and the pairs and seconds of a
        query.
    """
    columns = [title for k in SHOWN for title in (f"Mean R@{k}", f"R@{k} verified", "Difference")]
    rows = []
    for method, scores in found.metrics.items():
        name = describe(method)
        recalls = [cell for k in SHOWN for cell in _cells(scores, f"R@{k}")]
        taken = [Cell(f"{scores['pairs']:.0f}"), Cell(f"{scores['seconds']:.2f}")]
        rows.append(Row(method, name.label, name.note, "", (*recalls, *taken)))
    caption = (
        "Recall before and after a multimodal LLM verified the first answers, in percent, and what a query took. "
        "Differences are paired, with 95% intervals over queries."
    )
    return Table(f"Reranking, {benchmark}", caption, (*columns, "Pairs a query", "Seconds a query"), tuple(rows))


def _cells(scores: dict[str, Any], recall: str) -> tuple[Cell, Cell, Cell]:
    """A recall before and after, and its difference."""
    before, after = (Cell(f"{scores[when][recall]:.1f}") for when in ("before", "after"))
    change = scores["change"][recall]
    return before, after, Cell(f"{change['difference']:+.1f}", "", f"[{change['low']:.1f}, {change['high']:.1f}]")
