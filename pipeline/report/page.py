"""The self-contained page: everything that the template needs, worked out here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from pipeline.report import plots
from pipeline.report.metrics import INTERVAL_K, Answers
from pipeline.report.names import ATTRIBUTIONS, FEATURED, benchmark_label, describe, kind_label
from pipeline.report.pictures import data_uri, png_uri
from pipeline.report.public import Comparison
from pipeline.report.samples import featured
from pipeline.report.tables import Table
from pipeline.retrieval.protocols import MEAN

TOP = 10
"""Answers a method shown for every sample query."""

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """What the page shows (see `ReportInputs` for the fields of the same name)."""

    profile: str
    changed: Mapping[str, Any]
    benchmark: str
    answers: Answers
    gallery_size: int
    metrics: dict[str, dict[str, Any]]
    tables: list[Table]
    orders: dict[str, dict[str, float]]
    curves: dict[str, dict[int, float]]
    logs: dict[str, dict[str, list[float]]]
    samples: list[int]
    pictures: Mapping[str, Image.Image]
    descriptions: Mapping[str, str]
    further: dict[str, Table]
    """Other benchmarks' recall tables."""
    public: Sequence[Comparison] = ()
    """The public benchmarks beside the published figures."""


def render_page(page: Page) -> str:
    """The page as HTML: no outside resource, no date, no path; texts are escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    classes = {name: f"p{number}" for number, name in enumerate(sorted(page.pictures))}
    kinds = sorted(set(page.answers.kinds))
    return environment.get_template("page.html").render(
        page=page,
        title=benchmark_label(page.benchmark),
        further={benchmark_label(name): table for name, table in page.further.items()},
        kinds=[(number, kind_label(kind)) for number, kind in enumerate(kinds)],
        queries=[_query(page, row, classes, kinds) for row in page.samples],
        methods=[(method, describe(method)) for method in page.answers.by_method],
        judge=describe(featured(page.answers)[0]).label,
        judge_k=INTERVAL_K,
        tiles=_tiles(page),
        changed=[(name, *_before_and_now(value)) for name, value in sorted(page.changed.items())],
        orders=_orders(page.orders),
        recall_charts={theme: png_uri(plots.recall_chart(page.curves, theme)) for theme in ("light", "dark")},
        loss_charts=[
            (name.replace("_", " "), {theme: png_uri(plots.loss_chart(log, theme)) for theme in ("light", "dark")})
            for name, log in page.logs.items()
        ],
        pictures=[(classes[name], data_uri(page.pictures[name])) for name in classes],
        attributions=ATTRIBUTIONS,
    )


def _query(page: Page, row: int, classes: dict[str, str], kinds: list[str]) -> dict[str, Any]:
    """One sample query: what is asked and what each method answers."""
    query = page.answers.queries[row]
    answers = []
    for method in page.answers.by_method:
        ranked = page.answers.ranked(method)[row]
        rank = next((number for number, name in enumerate(ranked, start=1) if name in query.target_ids), None)
        pictures = [(classes[name], name, name in query.target_ids) for name in ranked[:TOP]]
        answers.append({
            "method": method, "label": describe(method).label, "featured": method in FEATURED, "rank": rank, "listed": len(ranked),
            "pictures": pictures,
        })
    kind = page.answers.kinds[row]
    return {
        "id": query.query_id, "kind": kinds.index(kind), "kind_label": kind_label(kind), "text": query.text,
        "reference": (classes[query.reference_id], query.reference_id), "description": page.descriptions.get(query.query_id, ""),
        "targets": [(classes[name], name) for name in query.target_ids[:TOP]], "more_targets": max(0, len(query.target_ids) - TOP),
        "hit": bool(page.answers.hits(featured(page.answers)[0])[row]), "answers": answers,
    }


def _tiles(page: Page) -> list[dict[str, str]]:
    """The headline: each featured method, and the best training-free row to compare with."""
    def score(method: str) -> float:
        return page.metrics[method][MEAN]["R@10"]

    tiles = [{"label": describe(method).label, "value": f"{score(method):.1f}", "note": "mean R@10"} for method in featured(page.answers)]
    free = [method for method in page.answers.by_method if describe(method).group == "Training-free"]
    if free:
        best = max(free, key=score)
        tiles.append({"label": "Best training-free row", "value": f"{score(best):.1f}", "note": f"mean R@10, {describe(best).label}"})
    return tiles


def _orders(orders: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Differences and their intervals, placed in percent of one common axis."""
    if not orders:
        return []
    low = min(0.0, *(entry["low"] for entry in orders.values()))
    high = max(0.0, *(entry["high"] for entry in orders.values()))
    span = (high - low) or 1.0

    def place(value: float) -> str:
        return f"{100 * (value - low) / span:.2f}"

    rows = []
    for key, entry in orders.items():
        upper, lower = key.split("_above_")
        verdict = "holds" if entry["low"] > 0 else "reversed" if entry["high"] < 0 else "open"
        rows.append({
            "upper": describe(upper).label, "lower": describe(lower).label, "verdict": verdict,
            "difference": f"{entry['difference']:+.1f}", "interval": f"[{entry['low']:+.1f}, {entry['high']:+.1f}]",
            "left": place(entry["low"]), "width": f"{100 * (entry['high'] - entry['low']) / span:.2f}",
            "point": place(entry["difference"]), "zero": place(0.0),
        })
    return rows


def _before_and_now(value: Any) -> tuple[str, str]:
    """A changed parameter's two values; a bare value has no earlier one."""
    before, now = value if isinstance(value, tuple | list) and len(value) == 2 else ("", value)
    return str(before), str(now)
