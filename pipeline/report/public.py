"""The public benchmarks in a report: official scores beside what the two papers published.

`published.json` holds the figures of the papers' tables, row by row, each with its table, split and
backbone; null is a figure that a table leaves out. A split of "" is one that the table does not name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import ShardSet, read_json
from pipeline.artifacts.shards import MANIFEST
from pipeline.report.metrics import RankedQueries, rounded
from pipeline.report.names import describe
from pipeline.retrieval.benchmarks import PUBLIC_BENCHMARKS, Benchmark, GroundTruth

PUBLISHED = Path(__file__).with_name("published.json")
HERE = "this run"
ABSENT = "–"


@dataclass(frozen=True)
class PublicSplitPaths:
    """Where the queries and answers of a public benchmark's split, or of its part, are."""

    name: str
    """Its folder below data/benchmarks."""
    benchmark: Benchmark
    split: str
    queries: Path
    rankings: Path
    aspects: Path | None = None
    private: bool = False
    """Whether its targets are; then there is nothing to score."""


@dataclass(frozen=True)
class ComparisonRow:
    method: str
    backbone: str
    source: str
    cells: tuple[str, ...]

    @property
    def ours(self) -> bool:
        return self.source == HERE


@dataclass(frozen=True)
class Comparison:
    """One split: our rows, then the published ones."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]


@dataclass(frozen=True)
class PublicReport:
    metrics: dict[str, dict[str, Any]]
    """`<benchmark>_<split>` -> method -> official scores, two decimals."""
    comparisons: list[Comparison]
    names: frozenset[str]
    """The benchmarks' folders that this speaks of."""


def public_report(parts: Sequence[PublicSplitPaths], backbones: Mapping[str, str]) -> PublicReport:
    """Score all splits with public targets. `backbones` says which model makes each space that is searched.

    Raises ArtifactError for ranked lists that are missing or damaged.
    """
    metrics, comparisons = {}, []
    for (name, split), group in _by_split(parts).items():
        benchmark = PUBLIC_BENCHMARKS[name]
        if any(part.private for part in group):
            comparisons.append(_private(benchmark, split, group))
            continue
        scores = rounded(_scores(benchmark, group))
        metrics[f"{benchmark.name}_{split}"] = scores
        comparisons.append(
            _comparison(benchmark, split, scores, {method: _backbone(group[0], method, backbones) for method in scores})
        )
    return PublicReport(metrics, comparisons, frozenset(part.name for part in parts))


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as Markdown, our rows bold."""
    parts = []
    for table in comparisons:
        lines = [f"### {table.title}", "", table.caption]
        if table.rows:
            lines += ["", "| method | backbone | source | " + " | ".join(table.columns) + " |"]
            lines.append("| --- | --- | --- |" + " ---: |" * len(table.columns))
        for row in table.rows:
            label = f"**{row.method}**" if row.ours else row.method
            lines.append(f"| {label} | {row.backbone} | {row.source} | " + " | ".join(row.cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n" if parts else ""


def _by_split(parts: Sequence[PublicSplitPaths]) -> dict[tuple[str, str], list[PublicSplitPaths]]:
    """FashionIQ's categories and GeneCIS' tasks come together."""
    order = list(PUBLIC_BENCHMARKS)
    groups: dict[tuple[str, str], list[PublicSplitPaths]] = {}
    for part in sorted(parts, key=lambda part: (order.index(part.benchmark.name), part.name)):
        groups.setdefault((part.benchmark.name, part.split), []).append(part)
    return groups


def _scores(benchmark: Benchmark, group: Sequence[PublicSplitPaths]) -> dict[str, dict[str, Any]]:
    """Method -> official scores, for the methods that answered every part."""
    read = [RankedQueries.read(part.queries, part.rankings) for part in group]
    methods = [method for method in read[0].by_method if all(method in answers.by_method for answers in read)]
    queries = [query for answers in read for query in answers.queries]
    truth = GroundTruth.of(queries, _aspects(group[0].aspects, [query.query_id for query in queries]))
    return {
        method: benchmark.score(
            truth,
            [ids for answers in read for ids in answers.ranked(method)],
            [ids for answers in read for ids in answers.subset_ranked(method)],
        )
        for method in methods
    }


def _aspects(folder: Path | None, query_ids: Sequence[str]) -> list[list[str]] | None:
    if folder is None:
        return None
    by_query = {row["query_id"]: row["aspects"] for row in ShardSet.open(folder).table().to_pylist()}
    return [by_query.get(query_id, []) for query_id in query_ids]


def _backbone(part: PublicSplitPaths, method: str, backbones: Mapping[str, str]) -> str:
    space = read_json(part.rankings / method / MANIFEST)["identity"].get("space", "")
    return backbones.get(space, space or ABSENT)


def _comparison(
    benchmark: Benchmark, split: str, scores: Mapping[str, Any], backbones: Mapping[str, str]
) -> Comparison:
    flat = {method: _flat(entry, benchmark.details) for method, entry in scores.items()}
    columns = tuple(dict.fromkeys(key for entry in flat.values() for key in entry))
    rows = [
        ComparisonRow(describe(method).label, backbones[method], HERE, _cells(entry, columns))
        for method, entry in flat.items()
    ]
    notes = ["Official protocol, in percent; of the published rows, those on another split say so."]
    for table in read_json(PUBLISHED):
        if table["benchmark"] != benchmark.name:
            continue
        notes += [table["note"]] if "note" in table else []
        source = f"{table['paper']}, {table['table']}" + (
            "" if table["split"] == split else f" ({table['split'] or 'split not named'})"
        )
        for method, backbone, *values in table["rows"]:
            found = dict(zip(table["metrics"], values, strict=True))
            if set(found) & set(columns):
                rows.append(ComparisonRow(method, backbone, source, _cells(found, columns)))
    labels = tuple(column.replace("/", " ").replace("_", " ") for column in columns)
    return Comparison(f"{benchmark.title}, {split}", " ".join(notes), labels, tuple(rows))


def _private(benchmark: Benchmark, split: str, group: Sequence[PublicSplitPaths]) -> Comparison:
    where = ", ".join(f"data/retrieved/{part.name}/submissions" for part in group)
    return Comparison(
        f"{benchmark.title}, {split}", f"Its targets are private. The files for its server are in {where}.", (), ()
    )


def _flat(entry: Mapping[str, Any], details: frozenset[str]) -> dict[str, float]:
    """`dress/R@10` and the like; the details stay in metrics.json."""
    return dict(_leaves({key: value for key, value in entry.items() if key not in details}))


def _leaves(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _cells(found: Mapping[str, float | None], columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(ABSENT if found.get(column) is None else f"{found[column]:.2f}" for column in columns)
