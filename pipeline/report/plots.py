"""Curves: CSV for DVC's plots, PNG for the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.artifacts import ArtifactError, write_atomically
from pipeline.report.names import describe
from pipeline.retrieval.protocols import MEAN

THEMES = {
    "light": ("#1d1f23", "#d9dbe0", "none"),
    "dark": ("#e6e7ea", "#3a3e46", "none"),
    "print": ("#1d1f23", "#d9dbe0", "white"),
}
"""Ink, grid and background colour: two for the page, one for a README."""
DPI = {"light": 130, "dark": 130, "print": 200}

SWEPT, TARGET, FAINT = "#d9481f", "#1a9c4b", "#7f8ea3"

LOSS_COLUMNS = ("step", "loss")


def write_recall_csv(path: Path, curves: dict[str, dict[int, float]]) -> None:
    """`method,K,recall`, one row a point."""
    _write_csv(
        path,
        ["method", "K", "recall"],
        [[method, k, value] for method, points in curves.items() for k, value in points.items()],
    )


def read_log(path: Path) -> dict[str, list[float]]:
    """A training log as columns.

    Raises:
        ArtifactError: A column is missing, or a row is not numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such training log")
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        columns = reader.fieldnames or []
    for name in LOSS_COLUMNS:
        if name not in columns:
            raise ArtifactError(f"{path}: no column {name!r}")
    try:
        return {name: [float(row[name]) for row in rows] for name in columns}
    except (TypeError, ValueError):
        raise ArtifactError(f"{path}: a row that is not numbers") from None


def write_loss_csv(path: Path, log: dict[str, list[float]]) -> None:
    """The log as it is, steps as whole numbers first."""
    names = ["step"] + [name for name in log if name != "step"]
    rows = [
        [int(log["step"][row])] + [f"{log[name][row]:.6g}" for name in names[1:]] for row in range(len(log["step"]))
    ]
    _write_csv(path, names, rows)


def recall_chart(curves: dict[str, dict[int, float]], legend: bool = False) -> Figure:
    """Mean recall over K, one line a method; the page writes its own legend."""
    figure, axes = _figure(width=7.4 if legend else 5.6)
    for method, points in curves.items():
        name = describe(method)
        weight = 2.4 if name.featured else 1.4
        axes.plot(
            list(points),
            list(points.values()),
            color=name.colour,
            linewidth=weight,
            marker="o",
            markersize=3,
            label=name.label,
        )
    axes.set_xscale("log")
    ticks = [k for k in (1, 2, 5, 10, 20, 50) if any(k in points for points in curves.values())]
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("K")
    axes.set_ylabel("mean R@K (%)")
    if legend:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    return figure


def loss_chart(log: dict[str, list[float]]) -> Figure:
    """The training loss over steps, raw and smoothed."""
    figure, axes = _figure(width=4.4, height=2.6)
    steps, losses = log["step"], log["loss"]
    axes.plot(steps, losses, color=FAINT, linewidth=0.8, alpha=0.45)
    axes.plot(steps, _smoothed(losses), color="#2f7de1", linewidth=1.8)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    return figure


def sweep_chart(
    points: Mapping[str, list[tuple[float, float, float, float]]], label: str, used: float | None
) -> Figure:
    """R@10 over one parameter's values: the mean with its interval, the kinds faint.

    A dashed line stands at the value used.
    """
    figure, axes = _figure(width=4.4, height=3.0)
    for kind, rows in points.items():
        values, recalls, low, high = zip(*rows, strict=True)
        if kind == MEAN:
            axes.fill_between(values, low, high, color=SWEPT, alpha=0.2, linewidth=0)
            axes.plot(values, recalls, color=SWEPT, linewidth=2.2, marker="o", markersize=4, zorder=3)
        else:
            axes.plot(values, recalls, color=FAINT, linewidth=0.8, alpha=0.6)
            axes.annotate(
                kind.replace("_", " "),
                (values[-1], recalls[-1]),
                (4, 0),
                textcoords="offset points",
                fontsize=6,
                color=FAINT,
                va="center",
            )
    if used is not None:
        axes.axvline(used, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_xlabel(label)
    axes.set_ylabel("R@10 (%)")
    return figure


def spread_chart(series: Mapping[str, list[tuple[float, float, float]]], label: str, peak: float | None) -> Figure:
    """R@10 over one parameter's values: name -> value, mean and spread.

    A dashed line stands where another's curve peaks.
    """
    figure, axes = _figure(width=4.4, height=3.0)
    for (name, points), colour in zip(series.items(), (SWEPT, "#2f7de1", TARGET, FAINT) * len(series), strict=False):
        values, means, spreads = (np.array(column) for column in zip(*points, strict=True))
        axes.fill_between(values, means - spreads, means + spreads, color=colour, alpha=0.2, linewidth=0)
        axes.plot(values, means, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=name)
    if peak is not None:
        axes.axvline(peak, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_xlabel(label)
    axes.set_ylabel("mean R@10 (%)")
    axes.legend(fontsize=7, frameon=False)
    return figure


def histogram_chart(groups: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> Figure:
    """Overlaid histograms of cosine similarities, each in percent of its own values, with lines at the means."""
    figure, axes = _figure(width=5.6, height=3.0)
    every = np.concatenate(list(groups.values()))
    bins = np.linspace(every.min(), max(every.max(), every.min() + 1e-3), 41)
    for name, values in groups.items():
        weights = np.full(len(values), 100 / len(values))
        axes.hist(
            values, list(bins), color=colours[name], alpha=0.4, histtype="stepfilled", weights=weights, label=name
        )
        axes.axvline(float(np.mean(values)), color=colours[name], linewidth=1.4)
    axes.set_xlabel("cosine similarity of image and text")
    axes.set_ylabel("pairs (%)")
    axes.legend(fontsize=8, frameon=False)
    return figure


def similarity_chart(target: np.ndarray, other: np.ndarray) -> Figure:
    """Two histograms over queries: the best target's cosine similarity and the best other image's."""
    figure, axes = _figure(width=3.6, height=2.1)
    low, high = min(target.min(), other.min()), max(target.max(), other.max())
    bins = np.linspace(low, high if high > low else low + 1e-3, 41)
    for values, colour in ((other, FAINT), (target, TARGET)):
        axes.hist(
            values,
            list(bins),
            color=colour,
            alpha=0.45,
            histtype="stepfilled",
            weights=np.full(len(values), 100 / len(values)),
        )
        axes.axvline(float(np.mean(values)), color=colour, linewidth=1.2)
    axes.set_xlabel("cosine similarity")
    axes.set_ylabel("queries (%)")
    return figure


def as_png(figure: Figure, theme: str) -> bytes:
    """The figure in a theme's colours. Its parts are laid out once: another theme of it costs less."""
    ink, grid, background = THEMES[theme]
    figure.set_facecolor(background)
    for axes in figure.axes:
        axes.set_facecolor(background)
        axes.tick_params(colors=ink)
        axes.grid(color=grid)
        legend = axes.get_legend()
        for label in (axes.xaxis.label, axes.yaxis.label, *(legend.get_texts() if legend else ())):
            label.set_color(ink)
        for spine in axes.spines.values():
            spine.set_color(grid)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI[theme], metadata={"Software": None})
    figure.set_layout_engine("none")
    return buffer.getvalue()


def _smoothed(values: list[float], keep: float = 0.8) -> list[float]:
    """Exponential moving average without the bias of its start."""
    average, weight, result = 0.0, 0.0, []
    for value in values:
        average, weight = keep * average + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(average / weight)
    return result


def _figure(width: float, height: float = 3.7) -> tuple[Figure, Axes]:
    """Inches; `as_png` brings the colours."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _write_csv(path: Path, header: list[str], rows: Iterable[Sequence[object]]) -> None:
    with write_atomically(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
