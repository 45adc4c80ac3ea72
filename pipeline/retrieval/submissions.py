"""Ranked lists as files: what can be scored or submitted, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts import write_atomically

Lists = dict[str, list[str]]
"""Query id -> image ids, best first."""

DEPTH, SUBSET_DEPTH = 50, 3
"""How many ids of a list the evaluation servers take, and how many of a list within a subset."""


class PredictionError(ValueError):
    """Ranked lists that cannot be scored or submitted; says how many and names the first."""


def first_of_each(lists: Lists, depth: int) -> Lists:
    """The first `depth` ids of every list.

    Raises:
        PredictionError: A list is shorter or names an image twice.
    """
    short = [query_id for query_id, ids in lists.items() if len(ids) < depth or len(set(ids)) != len(ids)]
    if short:
        raise PredictionError(
            f"{len(short)} queries have fewer than {depth} images, or one twice, the first is {short[0]!r}"
        )
    return {query_id: ids[:depth] for query_id, ids in lists.items()}


def write_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write each file as one line of JSON, the queries in order: the servers limit the size."""
    for name, content in files.items():
        with write_atomically(folder / name) as aside:
            aside.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    return [folder / name for name in files]
