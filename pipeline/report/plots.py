"""Curves: CSV for DVC's plots, PNG for the page."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.artifacts import ArtifactError, write_atomically
from pipeline.report.names import FEATURED, describe

THEMES = {"light": ("#1d1f23", "#d9dbe0", "none"), "dark": ("#e6e7ea", "#3a3e46", "none"), "print": ("#1d1f23", "#d9dbe0", "white")}
"""Ink, grid and background colour: two for the page, one for a README."""

LOSS_COLUMNS = ("step", "loss")


def write_recall_csv(path: Path, curves: dict[str, dict[int, float]]) -> None:
    """`method,K,recall`, one row a point."""
    _write_csv(path, ["method", "K", "recall"], [[method, k, value] for method, points in curves.items() for k, value in points.items()])


def read_log(path: Path) -> dict[str, list[float]]:
    """A training log as columns. Raises ArtifactError naming a column that is missing or a row that is not numbers."""
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
    rows = [[int(log["step"][row])] + [f"{log[name][row]:.6g}" for name in names[1:]] for row in range(len(log["step"]))]
    _write_csv(path, names, rows)


def recall_chart(curves: dict[str, dict[int, float]], theme: str) -> bytes:
    """Mean recall over K, one line a method, as PNG; the page writes its own legend."""
    figure, axes = _figure(theme, width=7.4 if theme == "print" else 5.6)
    for method, points in curves.items():
        name = describe(method)
        weight = 2.4 if method in FEATURED else 1.4
        axes.plot(list(points), list(points.values()), color=name.colour, linewidth=weight, marker="o", markersize=3, label=name.label)
    axes.set_xscale("log")
    ticks = [k for k in (1, 2, 5, 10, 20, 50) if any(k in points for points in curves.values())]
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("K")
    axes.set_ylabel("mean R@K (%)")
    if theme == "print":
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False, labelcolor=THEMES[theme][0])
    return _png(figure)


def loss_chart(log: dict[str, list[float]], theme: str) -> bytes:
    """The training loss over steps, raw and smoothed, as PNG."""
    figure, axes = _figure(theme, width=4.4, height=2.6)
    steps, losses = log["step"], log["loss"]
    axes.plot(steps, losses, color="#7f8ea3", linewidth=0.8, alpha=0.45)
    axes.plot(steps, _smoothed(losses), color="#2f7de1", linewidth=1.8)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    return _png(figure)


def _smoothed(values: list[float], keep: float = 0.8) -> list[float]:
    """Exponential moving average without the bias of its start."""
    average, weight, result = 0.0, 0.0, []
    for value in values:
        average, weight = keep * average + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(average / weight)
    return result


def _figure(theme: str, width: float, height: float = 3.7) -> tuple[Figure, Axes]:
    ink, grid, background = THEMES[theme]
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.set_facecolor(background)
    axes = figure.add_subplot(facecolor=background)
    axes.grid(color=grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=ink, labelsize=8)
    axes.xaxis.label.set_color(ink)
    axes.yaxis.label.set_color(ink)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(grid)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _write_csv(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with write_atomically(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
