"""The self-contained page: everything that the template needs, worked out here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from pipeline.report import plots
from pipeline.report.ablations import Ablation, ablation_chart, ablation_table, findings
from pipeline.report.diffcomp_view import ALIGNED, MASKED, QUERIES, DiffCompView
from pipeline.report.explorer import TOP
from pipeline.report.metrics import RankedQueries
from pipeline.report.names import ATTRIBUTIONS, benchmark_label, describe
from pipeline.report.public import Comparison
from pipeline.report.samples import featured
from pipeline.report.sweeps import Sweep
from pipeline.report.tables import Table
from pipeline.report.thumbnails import png_uri
from pipeline.retrieval.protocols import MEAN

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """What the page shows (see `ReportInputs` for the fields of the same name)."""

    profile: str
    seed: int
    changed: Mapping[str, Any]
    benchmark: str
    answers: RankedQueries
    gallery_size: int
    metrics: dict[str, dict[str, Any]]
    tables: list[Table]
    orders: dict[str, dict[str, float]]
    curves: dict[str, dict[int, float]]
    logs: dict[str, dict[str, list[float]]]
    sweeps: list[Sweep]
    weights: Mapping[str, str]
    used: Mapping[str, float]
    similarities: dict[str, tuple[np.ndarray, np.ndarray]]
    explorer: dict[str, Any]
    """What the script shows (see `explorer.explorer`)."""
    further: dict[str, Table]
    """Other benchmarks' recall tables."""
    public: Sequence[Comparison] = ()
    """The public benchmarks beside the published figures."""
    ablations: Sequence[Ablation] = ()
    trials: Sequence[Mapping[str, str]] = ()
    diffcomp_view: DiffCompView | None = None
    maps: Mapping[str, bytes] = field(default_factory=dict)
    """`masks` and `kept` of DiffComp and `imagined`, as PNG."""
    fidelity: Sequence[Sequence[str]] = ()
    """See `fidelity_rows`."""


def render_page(page: Page) -> str:
    """The page as HTML: no outside resource, no date, no path; texts are escaped.

    Args:
        page: What it shows.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        page=page,
        title=benchmark_label(page.benchmark),
        further={benchmark_label(name): table for name, table in page.further.items()},
        kinds=len(set(page.answers.kinds)),
        top=TOP,
        methods=[(method, describe(method)) for method in page.answers.by_method],
        tiles=_tiles(page),
        changed=[(name, *_before_and_now(value)) for name, value in sorted(page.changed.items())],
        orders=_orders(page.orders),
        recall_charts=_themed(plots.recall_chart(page.curves)),
        loss_charts=[
            (describe(name).label.replace("_", " "), _themed(plots.loss_chart(log))) for name, log in page.logs.items()
        ],
        sweeps=[_sweep(page, sweep) for sweep in page.sweeps],
        similarities=[_similarity(method, *values) for method, values in page.similarities.items()],
        ablations=[_ablation(ablation) for ablation in page.ablations],
        diffcomp_view=None if page.diffcomp_view is None else _diffcomp_view(page.diffcomp_view, page.maps),
        imagined=png_uri(page.maps["imagined"]) if "imagined" in page.maps else "",
        explorer=_json(page.explorer),
        attributions=ATTRIBUTIONS,
    )


def _themed(figure: Figure) -> dict[str, str]:
    return {theme: png_uri(plots.as_png(figure, theme)) for theme in ("light", "dark")}


def _json(value: Any) -> Markup:
    """JSON that no markup inside a text can leave."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def _sweep(page: Page, sweep: Sweep) -> dict[str, Any]:
    """A sweep's chart, and in words where its best value lies and whose weights it sampled from."""
    used = page.used.get(sweep.name)
    value, recall = sweep.best
    return {
        "label": sweep.label,
        "benchmark": benchmark_label(sweep.benchmark),
        "best": f"{value:g}",
        "recall": f"{recall:.1f}",
        "used": None if used is None else f"{used:g}",
        "stale": dict(sweep.weights) != dict(page.weights),
        "charts": _themed(plots.sweep_chart(sweep.points, sweep.label, used)),
    }


def _ablation(ablation: Ablation) -> dict[str, Any]:
    curve = ablation.definition.parameter
    return {
        "name": ablation.name,
        "table": ablation_table(ablation),
        "findings": findings(ablation),
        "recipe": ablation.recipe,
        "charts": _themed(ablation_chart(ablation)) if curve else None,
    }


PAIR_COLOURS = {ALIGNED: "#2f7de1", MASKED: "#d9481f", QUERIES: "#1a9c4b"}


def _diffcomp_view(view: DiffCompView, maps: Mapping[str, bytes]) -> dict[str, Any]:
    """The histograms with what they say in words, and the maps."""
    means = view.means
    order = "below" if means[MASKED] < means[ALIGNED] else "not below"
    nearer = min((ALIGNED, MASKED), key=lambda name: abs(means[name] - means[QUERIES]))
    listed = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
    return {
        "charts": _themed(plots.histogram_chart(view.similarities, PAIR_COLOURS)),
        "maps": {name: png_uri(png) for name, png in maps.items()},
        "words": f"Means: {listed}. The masked pairs lie {order} the aligned ones; "
        f"the queries lie nearer to the {nearer}. Masking lowers the cosine of "
        f"{100 * view.order['masked left of aligned']:.0f}% of the pairs.",
    }


def _similarity(method: str, target: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    return {
        "label": describe(method).label,
        "target": f"{target.mean():.2f}",
        "other": f"{other.mean():.2f}",
        "above": f"{100 * float((target > other).mean()):.0f}",
        "charts": _themed(plots.similarity_chart(target, other)),
    }


def _tiles(page: Page) -> list[dict[str, str]]:
    """The headline: each featured method, and the best training-free row to compare with."""

    def score(method: str) -> float:
        return page.metrics[method][MEAN]["R@10"]

    tiles = [
        {"label": describe(method).label, "value": f"{score(method):.1f}", "note": "mean R@10"}
        for method in featured(page.answers)
    ]
    free = [method for method in page.answers.by_method if describe(method).group == "Training-free"]
    if free:
        best = max(free, key=score)
        tiles.append(
            {
                "label": "Best training-free row",
                "value": f"{score(best):.1f}",
                "note": f"mean R@10, {describe(best).label}",
            }
        )
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
        rows.append(
            {
                "upper": describe(upper).label,
                "lower": describe(lower).label,
                "verdict": verdict,
                "words": _in_words(entry, verdict),
                "difference": f"{entry['difference']:+.1f}",
                "interval": f"[{entry['low']:+.1f}, {entry['high']:+.1f}]",
                "left": place(entry["low"]),
                "width": f"{100 * (entry['high'] - entry['low']) / span:.2f}",
                "point": place(entry["difference"]),
                "zero": place(0.0),
            }
        )
    return rows


def _in_words(entry: dict[str, float], verdict: str) -> str:
    """What a difference in R@10 says about a hundred queries."""
    more, low, high = entry["difference"], entry["low"], entry["high"]
    if verdict == "open":
        return (
            f"Between {low:+.1f} and {high:+.1f} queries in a hundred: "
            "these queries cannot tell which of the two is ahead."
        )
    many, (least, most) = abs(more), sorted((abs(low), abs(high)))
    which = "more" if verdict == "holds" else "fewer"
    return f"Finds a target for {many:.1f} {which} of a hundred queries (95% interval: {least:.1f} to {most:.1f})."


def _before_and_now(value: Any) -> tuple[str, str]:
    """A changed parameter's two values; a bare value has no earlier one."""
    before, now = value if isinstance(value, tuple | list) and len(value) == 2 else ("", value)
    return str(before), str(now)
