"""The ablations that `stages/ablate.py` wrote, beside what the paper prints.

Tables, curves, and where the orders agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from pipeline.artifacts import ArtifactError, read_json
from pipeline.experiments.ablation.tables import TABLES, read_tables
from pipeline.experiments.ablation.tables import Table as Definition
from pipeline.report import plots
from pipeline.report.names import benchmark_label
from pipeline.report.tables import Cell, Row, Table, best_and_second
from pipeline.retrieval.protocols import MEAN

HELD_OUT = "emoji_cir"
"""Whose order the findings speak of, where it was scored."""
RECIPE = (
    "steps",
    "batch_size",
    "lr",
    "image_layers",
    "text_layers",
    "fill",
    "augment",
    "super_patch",
    "local_blocks",
    "eta",
    "lambda_base",
    "phi",
)
METRIC = "R@10"
"""What rows are ordered by."""
FURTHER = ("R@1", "R@5", "R@50", "mAP@5")
"""Shown beside it, where the order is told."""
TRIALS = "trials.yaml"
CLEAR = 2.0
"""Standard errors of a difference from which on it is called clear."""


@dataclass(frozen=True)
class Point:
    """The mean over kinds of a metric of one configuration, in percent, over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """The standard deviation over seeds (n - 1); 0 for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0

    @property
    def text(self) -> str:
        return f"{self.mean:.1f} ± {self.spread:.1f}" if len(self.values) > 1 else f"{self.mean:.1f}"

    def clearly_differs(self, other: Point) -> bool:
        """By more than `CLEAR` standard errors; nothing is clear with a single seed."""
        if min(len(self.values), len(other.values)) < 2:
            return False
        error = np.sqrt(self.spread**2 / len(self.values) + other.spread**2 / len(other.values))
        return abs(self.mean - other.mean) > CLEAR * error


@dataclass(frozen=True)
class Ablation:
    """One table or curve of `ablations/tables.yaml`, as far as its cells are finished."""

    name: str
    definition: Definition
    points: Mapping[tuple[str, str, str], Point]
    """Row, setting, benchmark -> mean R@10."""
    further: Mapping[tuple[str, str, str], Mapping[str, Point]]
    """The same -> each of `FURTHER`."""
    similarities: Mapping[tuple[str, str], tuple[float, float]]
    """Row, setting -> mean cosine of aligned and of masked pairs in the last logged step, over seeds."""
    diffcomp: Mapping[str, Any]
    """What the configurations share."""
    devices: tuple[str, ...]
    missing: int
    """Rows, in all settings, without any finished cell."""

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(benchmark for _, _, benchmark in self.points))

    @property
    def recipe(self) -> str:
        """The shared configuration in words."""
        shared = [name for name in RECIPE if name != self.definition.parameter and name in self.diffcomp]
        return ", ".join(f"{name} {self.diffcomp[name]}" for name in shared)

    @property
    def told(self) -> str:
        """The benchmark whose order the findings speak of."""
        return HELD_OUT if HELD_OUT in self.benchmarks else self.benchmarks[0]

    def columns(self) -> list[tuple[str, str]]:
        """Setting and benchmark of every column that holds something."""
        filled = {key[1:] for key in self.points}
        every = ((setting, benchmark) for setting in self.definition.settings for benchmark in self.benchmarks)
        return [column for column in every if column in filled]


def read_ablations(folder: str | Path, definitions: str | Path = TABLES) -> list[Ablation]:
    """What `folder` holds, in the order of the definitions; none where there is nothing.

    Raises:
        ArtifactError: A file is no ablation; names it.
    """
    folder = Path(folder)
    found: list[Ablation] = []
    if not any(folder.glob("*.json")):
        return found
    for name, definition in read_tables(definitions).items():
        path = folder / f"{name}.json"
        if path.is_file():
            try:
                ablation = _read(name, definition, read_json(path))
            except (KeyError, TypeError, AttributeError) as error:
                raise ArtifactError(f"{path}: not an ablation ({error!r})") from None
            found += [ablation] if ablation.points else []
    return found


def read_trials(folder: str | Path) -> list[dict[str, str]]:
    """`trials.yaml` of `folder`: a list of mappings, what was tried and what came of it.

    Returns:
        An empty list where the file is not there.

    Raises:
        ArtifactError: It is not a list of mappings.
    """
    path = Path(folder) / TRIALS
    if not path.is_file():
        return []
    trials = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(trials, list) or not all(isinstance(trial, dict) for trial in trials):
        raise ArtifactError(f"{path}: not a list of mappings")
    names = list(dict.fromkeys(name for trial in trials for name in trial))
    return [{name: str(trial.get(name, "")) for name in names} for trial in trials]


def ablation_table(ablation: Ablation) -> Table:
    """Rows of the definition: mean R@10 and its spread by setting and benchmark, then the paper's figures.

    Where the order is told, R@1, 5 and 50 and mAP@5 stand beside it. The best are marked.
    """
    rows = {
        name: row for name, row in ablation.definition.rows.items() if any(key[0] == name for key in ablation.points)
    }
    columns: list[str] = []
    cells: dict[str, list[Cell]] = {name: [] for name in rows}
    for setting, benchmark in ablation.columns():
        points = {name: ablation.points.get((name, setting, benchmark)) for name in rows}
        marked = dict(
            zip(
                [name for name in rows if points[name]],
                best_and_second([round(point.mean, 1) for point in points.values() if point]),
                strict=True,
            )
        )
        columns.append(_column(setting, benchmark))
        for name, point in points.items():
            cells[name].append(Cell(point.text, marked[name]) if point else Cell("-"))
        for metric in FURTHER if benchmark == ablation.told else ():
            columns.append(f"{_column(setting, benchmark)}: {metric}")
            for name in rows:
                beside = ablation.further.get((name, setting, benchmark), {}).get(metric)
                cells[name].append(Cell(beside.text) if beside else Cell("-"))
    for metric in _paper_metrics(ablation.definition):
        columns.append(f"paper: {metric}")
        for name, row in rows.items():
            cells[name].append(Cell(f"{row.paper[metric]:.1f}" if metric in row.paper else "-"))
    finished = [Row(name, row.label or name, "", "", tuple(cells[name])) for name, row in rows.items()]
    return Table(
        f"{ablation.definition.title} ({ablation.definition.source})",
        _caption(ablation),
        tuple(columns),
        tuple(finished),
    )


def ablation_chart(ablation: Ablation) -> Figure:
    """A curve over one parameter: a line a setting and benchmark with its spread.

    A dashed line stands where the paper's curve peaks.
    """
    definition = ablation.definition
    series = {}
    for setting, benchmark in ablation.columns():
        points = [(value, ablation.points.get((f"{value:g}", setting, benchmark))) for value in definition.values]
        series[_column(setting, benchmark)] = [(value, point.mean, point.spread) for value, point in points if point]
    return plots.spread_chart(series, definition.title, definition.peak)


def findings(ablation: Ablation) -> list[str]:
    """Where the order of the rows agrees with the paper's and where it does not, worked out from the figures."""
    benchmark, found = ablation.told, []
    for setting in ablation.definition.settings:
        points = {
            row: point for (row, of, where), point in ablation.points.items() if (of, where) == (setting, benchmark)
        }
        if len(points) < 2:
            continue
        parts = _on_a_curve(ablation, points) if ablation.definition.parameter else _on_a_table(ablation, points)
        found.append(f"{_column(setting, benchmark)}: {' '.join(parts)}")
    if ablation.similarities:
        below = sum(masked < aligned for aligned, masked in ablation.similarities.values())
        found.append(
            f"Masked pairs are less alike than aligned ones (mean cosine with the caption, last step) in {below} of "
            f"{len(ablation.similarities)} configurations."
        )
    return found


def _on_a_table(ablation: Ablation, points: Mapping[str, Point]) -> Iterator[str]:
    definition = ablation.definition
    for metric in _paper_metrics(definition)[:1]:
        paper = {row: definition.rows[row].paper[metric] for row in points if metric in definition.rows[row].paper}
        pairs = [(a, b) for a, b in combinations(paper, 2) if paper[a] != paper[b]]
        agreeing = [pair for pair in pairs if _same_order(pair, points, paper)]
        clear = [pair for pair in pairs if points[pair[0]].clearly_differs(points[pair[1]])]
        agreeing_clearly = [pair for pair in clear if pair in agreeing]
        yield f"of {len(pairs)} pairs of rows, {len(agreeing)} lie in the paper's order ({metric})."
        beyond = f"by more than {CLEAR:g} standard errors"
        yield (
            f"{len(clear)} differ {beyond}, {len(agreeing_clearly)} of them in that order."
            if clear
            else f"None differs {beyond}."
        )
        if paper:
            best, theirs = max(points, key=lambda row: points[row].mean), max(paper, key=lambda row: paper[row])
            ours, paper_label = f"{_label(definition, best)} ({points[best].text})", _label(definition, theirs)
            yield f"Highest is {ours}, in the paper {paper_label}."
    if definition.full in points:
        full, others = points[definition.full], [row for row in points if row != definition.full]
        not_below = [
            f"{_label(definition, row)} ({points[row].mean - full.mean:+.1f})"
            for row in others
            if points[row].mean >= full.mean
        ]
        name = _label(definition, definition.full)
        yield f"{name} lies above {len(others) - len(not_below)} of the {len(others)} others" + (
            f"; not above {', '.join(not_below)}." if not_below else "."
        )


def _on_a_curve(ablation: Ablation, points: Mapping[str, Point]) -> Iterator[str]:
    best = max(points, key=lambda row: points[row].mean)
    lowest = min(points, key=lambda row: points[row].mean)
    peak = ablation.definition.peak
    yield f"highest at {best} ({points[best].text})" + (f", in the paper at {peak:g}" if peak is not None else "") + "."
    unclear = "" if points[best].clearly_differs(points[lowest]) else ": not clearly another"
    yield f"Lowest at {lowest} ({points[lowest].text}){unclear}."


def _same_order(pair: tuple[str, str], points: Mapping[str, Point], paper: Mapping[str, float]) -> bool:
    first, second = pair
    return (points[first].mean - points[second].mean) * (paper[first] - paper[second]) > 0


def _read(name: str, definition: Definition, stored: Mapping[str, Any]) -> Ablation:
    values: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    cosines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cell in stored["cells"]:
        if cell["row"] not in definition.rows or cell["setting"] not in definition.settings:
            continue  # of an earlier definition
        if "scores" not in cell:
            continue  # of an earlier version
        for benchmark, scores in cell["scores"].items():
            values.setdefault((cell["row"], cell["setting"], benchmark), []).append(scores[MEAN])
        shown = cell["training"]
        if "cos_masked" in shown:
            cosines.setdefault((cell["row"], cell["setting"]), []).append((shown["cos_aligned"], shown["cos_masked"]))
    finished = {(row, setting) for row, setting, _ in values}
    return Ablation(
        name,
        definition,
        {key: _point(found, METRIC) for key, found in values.items()},
        {key: {metric: _point(found, metric) for metric in FURTHER} for key, found in values.items()},
        {key: tuple(np.mean(pairs, axis=0).tolist()) for key, pairs in cosines.items()},
        stored["diffcomp"],
        tuple(sorted({cell["device"] for cell in stored["cells"]})),
        len(definition.rows) * len(definition.settings) - len(finished),
    )


def _point(scores: Sequence[Mapping[str, float]], metric: str) -> Point:
    return Point(tuple(of_seed[metric] for of_seed in scores))


def _caption(ablation: Ablation) -> str:
    seeds = sorted({len(point.values) for point in ablation.points.values()})
    counted = " or ".join(map(str, seeds)) + (" seed" if seeds == [1] else " seeds")
    missing = f" {ablation.missing} configurations are not finished." if ablation.missing else ""
    devices = ", ".join(ablation.devices)
    return f"Mean {METRIC} over query kinds, mean ± standard deviation over {counted}, in percent; {devices}.{missing}"


def _column(setting: str, benchmark: str) -> str:
    return f"{setting}, {benchmark_label(benchmark)}" if setting else benchmark_label(benchmark)


def _paper_metrics(definition: Definition) -> Sequence[str]:
    return list(dict.fromkeys(metric for row in definition.rows.values() for metric in row.paper))


def _label(definition: Definition, row: str) -> str:
    return definition.rows[row].label or row
