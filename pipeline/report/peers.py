"""The table of the peers that were trained here. It is committed: the default trains none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, read_json
from pipeline.report.names import describe
from pipeline.report.tables import Cell, Row, Table

SCORES = "scores.json"


def peers_table(folder: str | Path) -> Table | None:
    """The table of `scores.json`, as `bench/peers.py` writes it.

    Args:
        folder: Holds it.

    Returns:
        The mean over seeds of every score, with its interval; None where there is no such file.

    Raises:
        ArtifactError: The file is none of such scores.
    """
    path = Path(folder) / SCORES
    if not path.is_file():
        return None
    found = read_json(path)
    try:
        columns = tuple(found["columns"])
        rows = tuple(
            Row(method.name, method.label, method.note, "", tuple(_cell(row[column]) for column in columns))
            for row in found["rows"]
            for method in [describe(row["method"])]
        )
        return Table("Peers, trained here", found["caption"], columns, rows)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not the peers' scores ({type(error).__name__}: {error})") from None


def _cell(score: dict[str, Any] | None) -> Cell:
    """A score in percent with its interval; a method has no difference to itself."""
    if score is None:
        return Cell("")
    interval = f"[{score['low']:.1f}, {score['high']:.1f}]" if "low" in score else ""
    return Cell(f"{score['value']:.1f}", "", interval)
