"""Rows over several training seeds. The files are committed: the default trains with one seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, read_json
from pipeline.report.names import benchmark_label, describe, ordered
from pipeline.report.tables import Cell, Row, Table

SPREAD, TOLD = "spread", "R@10"
"""The spread over seeds, and the column that it is of."""


def seeds_tables(folder: str | Path) -> list[Table]:
    """The tables of every JSON file in `folder`, as `bench/seeds.py` writes them: one a benchmark.

    Args:
        folder: Holds them; none are no tables.

    Returns:
        The tables, by file and benchmark.

    Raises:
        ArtifactError: A file is none of such results; names it.
    """
    tables = []
    for path in sorted(Path(folder).glob("*.json")):
        found = read_json(path)
        try:
            tables += [_table(found, name) for name in found["benchmarks"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path}: not scores by seed ({type(error).__name__}: {error})") from None
    return tables


def _table(found: Mapping[str, Any], benchmark: str) -> Table:
    columns = [column for column in found["columns"] if column != SPREAD]
    rows = found["benchmarks"][benchmark]["rows"]
    where = found["hardware"]["gpu"] or found["hardware"]["cpu"]
    caption = (
        f"The mean over query kinds and over {len(found['seeds'])} training seeds, in percent; {TOLD} ± standard "
        f"deviation over seeds, with its 95% interval over queries. Differences are paired by query; {where}."
    )
    if "note" in found:
        caption += f" {found['note']}"
    return Table(
        f"{found['title']}: {benchmark_label(benchmark)}",
        caption,
        tuple(columns),
        tuple(
            Row(name, describe(name).label, describe(name).note, "", tuple(_cell(rows[name], key) for key in columns))
            for name in ordered(rows)
        ),
    )


def _cell(row: Mapping[str, Any], column: str) -> Cell:
    """A score; a row has no difference to itself, and what no seed changes has no spread."""
    if column not in row:
        return Cell("")
    score = row[column]
    text = f"{score['value']:.1f}" + (
        f" ± {row[SPREAD]['value']:.1f}" if column == TOLD and row[SPREAD]["value"] else ""
    )
    return Cell(text, "", f"[{score['low']:.1f}, {score['high']:.1f}]" if "low" in score else "")
