"""Figures of the committed results, and figures in the pages."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.committed import committed
from tests.docs.pages import ROOT, TEXTS


def bench(name: str) -> Any:
    return json.loads((ROOT / f"reports/bench/{name}.json").read_text())


def committed_seeds(methods: str) -> Any:
    """Benchmark -> rows and ranks over training seeds."""
    return json.loads(committed(f"reports/seeds/{methods}.json"))["benchmarks"]


def cells(page: str, start: str) -> list[str]:
    """The cells behind the first one of the row that begins with `start`."""
    row = next(line for line in TEXTS[page].splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip(" *") for cell in row.split("|")[2:-1]]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))]
