"""`cir rejected`: what the stages and `cir index` left out, and why."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.app.cli.project import check_folder
from pipeline.app.errors import report_errors

_DATA = Path("data")


@report_errors()
def rejected(
    place: Annotated[
        Path, typer.Argument(help="A rejected.parquet, or a folder to look through: data/, or a folder of images.")
    ] = _DATA,
    rows: Annotated[int, typer.Option(min=0, help="How many rows of each file to print; 0: all of them.")] = 10,
    reason: Annotated[str, typer.Option(help="Only rows whose reason contains this.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print every row as a JSON object, nothing else.")] = False,
) -> None:
    """Print what was left out: counts by reason, then the rows themselves."""
    from pipeline.artifacts.rejections import find_rejections

    if place == _DATA and not place.exists():
        check_folder()
    files = find_rejections(place)
    if not files and not as_json:
        typer.echo(f"{place}: nothing was left out")
    for path in files:
        if as_json:
            _print_json(path, reason)
        else:
            _print_file(path, reason, rows)


def _print_file(path: Path, reason: str, rows: int) -> None:
    from pipeline.artifacts.rejections import count_reasons, printable, read_rejections

    counts = count_reasons(row for row in read_rejections(path) if reason in row.reason)
    total = sum(found.count for found in counts)
    typer.echo(f"{path}: {total} left out")
    for found in counts:
        typer.echo(f"{found.count:>9,}  {printable(found.kind if found.count > 1 else found.first.reason)}")
    kept = (row for row in read_rejections(path) if reason in row.reason)
    for row in itertools.islice(kept, rows or None):
        typer.echo(f"  {printable(row.id)}: {printable(row.reason)}")
    if rows and total > rows:
        typer.echo(f"  and {total - rows:,} more; --rows 0 prints all of them")


def _print_json(path: Path, reason: str) -> None:
    from pipeline.artifacts.rejections import read_rejections

    for row in read_rejections(path):
        if reason in row.reason:
            typer.echo(json.dumps({"file": str(path), "id": row.id, "reason": row.reason}, ensure_ascii=False))
