"""Result tables: which methods are rows, which metrics columns, what is best and second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.names import describe, kind_label
from pipeline.retrieval.benchmarks.emoji_cir import CIRCO, CIRR, GENECIS, PROTOCOLS
from pipeline.retrieval.bootstrap import Interval
from pipeline.retrieval.protocols import MEAN

Path = tuple[str, ...]

PROTOCOL_CAPTIONS = {
    CIRR: (
        "CIRR's protocol",
        "Recall of the first target with the reference removed, and within the six closest family members.",
    ),
    CIRCO: ("CIRCO's protocol", "Mean average precision over all fitting targets."),
    GENECIS: (
        "GeneCIS' protocol",
        "Recall in each query's own small gallery: R@1 by task, and the average over tasks.",
    ),
}
"""Protocol -> title and caption of its table."""


@dataclass(frozen=True)
class Cell:
    text: str
    mark: str = ""
    """best | second | nothing."""
    interval: str = ""


@dataclass(frozen=True)
class Row:
    method: str
    label: str
    note: str
    group: str
    """Filled on the first row of a group."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def kinds_of(metrics: dict[str, dict[str, Any]]) -> list[str]:
    """The query kinds that a benchmark's metrics tell apart."""
    first = next(iter(metrics.values()))
    return [key for key in first if key != MEAN and key not in PROTOCOLS]


def recall_table(
    metrics: dict[str, dict[str, Any]],
    intervals: dict[str, Interval] | None = None,
    by_kind: dict[str, dict[str, Interval]] | None = None,
) -> Table:
    """The mean over kinds at every K, its R@10 with the 95% interval, then R@10 by kind (with its own where given)."""
    columns: list[tuple[str, Path]] = [(f"Mean {key}", (MEAN, key)) for key in metrics[next(iter(metrics))][MEAN]]
    columns += [(kind_label(kind), (kind, "R@10")) for kind in kinds_of(metrics)]
    known: dict[Path, dict[str, Interval]] = {(MEAN, "R@10"): intervals or {}}
    known |= {(kind, "R@10"): entry for kind, entry in (by_kind or {}).items()}
    return _table(
        "Recall by query kind", "The mean over query kinds, then R@10 by kind; in percent.", columns, metrics, known
    )


def protocol_tables(metrics: dict[str, dict[str, Any]]) -> list[Table]:
    """One table a protocol that the metrics hold."""
    tables = []
    for protocol in PROTOCOLS:
        scored = {method: entry for method, entry in metrics.items() if protocol in entry}
        if not scored:
            continue
        first = next(iter(scored.values()))[protocol]
        if MEAN in first:  # scored by task
            columns: list[tuple[str, Path]] = [
                (f"{kind_label(task)} R@1", (protocol, task, "R@1")) for task in first if task != MEAN
            ]
            columns += [(f"Mean {key}", (protocol, MEAN, key)) for key in first[MEAN]]
        else:
            columns = [(key.replace("_subset", " subset "), (protocol, key)) for key in first]
        tables.append(_table(*PROTOCOL_CAPTIONS[protocol], columns, scored, {}))
    return tables


def best_and_second(values: Sequence[float]) -> list[str]:
    """`best` for the highest values, `second` for the next lower ones; equal values share a mark."""
    levels = sorted(set(values), reverse=True)
    return [
        "best" if value == levels[0] else "second" if len(levels) > 1 and value == levels[1] else "" for value in values
    ]


def markdown(tables: Sequence[Table]) -> str:
    """The tables as Markdown: the best bold, the second underlined."""
    parts = []
    for table in tables:
        lines = [f"### {table.title}", "", table.caption, "", "| method | " + " | ".join(table.columns) + " |"]
        lines.append("| --- |" + " ---: |" * len(table.columns))
        for row in table.rows:
            shown = (
                _MARKDOWN[cell.mark].format(cell.text) + (f" {cell.interval}" if cell.interval else "")
                for cell in row.cells
            )
            cells = " | ".join(shown)
            lines.append(f"| {_plain(row.label)} | {cells} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


_MARKDOWN = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}


def _plain(text: str) -> str:
    """A label that cannot break a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _table(
    title: str,
    caption: str,
    columns: list[tuple[str, Path]],
    metrics: dict[str, dict[str, Any]],
    intervals: dict[Path, dict[str, Interval]],
) -> Table:
    values = {path: [_at(metrics[method], path) for method in metrics] for _, path in columns}
    marked = {path: best_and_second(column) for path, column in values.items()}
    rows, group = [], ""
    for number, method in enumerate(metrics):
        name = describe(method)
        cells = []
        for _, path in columns:
            interval = intervals.get(path, {}).get(method)
            bounds = f"[{interval.low:.1f}, {interval.high:.1f}]" if interval else ""
            cells.append(Cell(f"{values[path][number]:.1f}", marked[path][number], bounds))
        rows.append(Row(method, name.label, name.note, "" if name.group == group else name.group, tuple(cells)))
        group = name.group
    return Table(title, caption, tuple(label for label, _ in columns), tuple(rows))


def _at(entry: dict[str, Any], path: Path) -> float:
    for key in path:
        entry = entry[key]
    return entry  # type: ignore[return-value]
