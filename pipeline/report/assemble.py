"""From ranked lists to everything under `reports/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, ShardSet, write_atomically, write_json
from pipeline.experiments.ablation.tables import TABLES
from pipeline.report import plots
from pipeline.report.ablations import ablation_table, read_ablations, read_trials
from pipeline.report.explorer import explorer
from pipeline.report.figures import SHOWN, map_strip, query_strip
from pipeline.report.look import Look
from pipeline.report.metrics import (
    Answers,
    benchmark_metrics,
    claimed_orders,
    kind_intervals,
    method_intervals,
    read_similarities,
    recall_curves,
)
from pipeline.report.names import CLAIMED_ORDERS
from pipeline.report.page import Page, render_page
from pipeline.report.public import PublicAnswers, public_report
from pipeline.report.public import markdown as public_markdown
from pipeline.report.samples import featured, figure_queries
from pipeline.report.sweeps import read_sweeps
from pipeline.report.tables import markdown, protocol_tables, recall_table
from pipeline.report.thumbnails import load_images

FIGURE_ROWS = 6


@dataclass(frozen=True)
class Benchmark:
    """Where one benchmark's queries and answers are."""

    name: str
    """Its key in `metrics.json`."""
    queries: Path
    rankings: Path
    """A folder with one shard set of rankings a method."""
    images: Path | None = None
    """Its images (a shard set of `schemas.IMAGES`); needed of the first benchmark only."""
    genecis_queries: Path | None = None
    """Queries whose `subset_ids` are their own small galleries and whose categories are tasks."""
    genecis_rankings: Path | None = None
    similarities: Path | None = None
    """A shard set of `schemas.SIMILARITIES`."""


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made from. The first benchmark is the one that the page shows in full."""

    benchmarks: Sequence[Benchmark]
    out: Path
    profile: str
    changed: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that differ from the profile's: dotted name -> (the profile's value, the value)."""
    losses: Mapping[str, Path] = field(default_factory=dict)
    """Model -> its training log, a CSV with at least `step` and `loss`."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """Query id -> the target description that was inferred for it."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """What `index_metrics` says of the indexes."""
    sweeps: Path | None = None
    """A folder of sweeps (see `read_sweeps`)."""
    ablations: Path | None = None
    """A folder of DiffComp's ablations (see `read_ablations`), defined in `definitions`."""
    definitions: Path = TABLES
    look: Look | None = None
    """What the trained DiffComp sees."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the `prior` and the `control` of this run: a sweep of others is marked as such."""
    used: Mapping[str, float] = field(default_factory=dict)
    """Swept parameter -> its value in this run."""
    seed: int = 0
    bootstrap: int = 1000
    page_megabytes: float = 7.0
    orders: Sequence[tuple[str, str]] = CLAIMED_ORDERS
    public: Sequence[PublicAnswers] = ()
    """What of the public benchmarks was answered; scored by their own protocols, whatever `benchmarks` holds."""
    backbones: Mapping[str, str] = field(default_factory=dict)
    """Space -> the model whose vectors are searched there."""


def changed_parameters(
    values: Mapping[str, Any], profile: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (the profile's value, the value) of every parameter that differs."""
    changed = {}
    for key in sorted(values.keys() | profile.keys()):
        before, now = profile.get(key), values.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            changed |= changed_parameters(now, before, f"{prefix}{key}.")
        elif before != now:
            changed[f"{prefix}{key}"] = (before, now)
    return changed


def build_report(inputs: ReportInputs) -> None:
    """Write `metrics.json`, `plots/`, `tables/`, `figures/` and `index.html` into `inputs.out`.

    Raises ArtifactError naming the benchmark, query, image or log that is missing or wrong.
    """
    if not inputs.benchmarks or inputs.benchmarks[0].images is None:
        raise ArtifactError("a report needs a benchmark with pictures")
    out, first = Path(inputs.out), inputs.benchmarks[0]
    read = {benchmark.name: _read(benchmark) for benchmark in inputs.benchmarks}
    metrics = {name: benchmark_metrics(*answers) for name, answers in read.items()}
    answers = read[first.name][0]
    orders = claimed_orders(answers, inputs.orders, inputs.bootstrap, inputs.seed)
    curves = recall_curves(answers)
    logs = {name: plots.read_log(path) for name, path in inputs.losses.items()}
    intervals = method_intervals(answers, inputs.bootstrap, inputs.seed)
    protocols = protocol_tables(metrics[first.name])
    strip = figure_queries(answers, FIGURE_ROWS, inputs.seed)
    pictures = load_images(first.images, _shown(answers, strip))
    public = public_report(inputs.public, inputs.backbones)
    ablations = read_ablations(inputs.ablations, inputs.definitions) if inputs.ablations else []
    maps = (
        {}
        if inputs.look is None
        else {
            "masks": map_strip(inputs.look.masks, limits=(0.0, 1.0)),
            "kept": map_strip(inputs.look.kept),
        }
    )
    page = render_page(
        Page(
            profile=inputs.profile,
            seed=inputs.seed,
            changed=inputs.changed,
            benchmark=first.name,
            answers=answers,
            gallery_size=ShardSet.open(first.images, verify=False).rows,
            metrics=metrics[first.name],
            tables=[
                recall_table(metrics[first.name], intervals, kind_intervals(answers, inputs.bootstrap, inputs.seed)),
                *protocols,
            ],
            orders=orders,
            curves=curves,
            logs=logs,
            sweeps=read_sweeps(inputs.sweeps) if inputs.sweeps else [],
            weights=inputs.weights,
            used=inputs.used,
            similarities=read_similarities(first.similarities) if first.similarities else {},
            explorer=explorer(
                answers, first.images, inputs.descriptions, inputs.seed, int(inputs.page_megabytes * 1e6)
            ),
            further={benchmark.name: recall_table(metrics[benchmark.name]) for benchmark in inputs.benchmarks[1:]},
            public=public.comparisons,
            ablations=ablations,
            trials=read_trials(inputs.ablations) if inputs.ablations else [],
            look=inputs.look,
            maps=maps,
        )
    )

    own = {name: scores for name, scores in metrics.items() if name not in public.names}
    further = {"index": inputs.index} if inputs.index else {}
    if inputs.look is not None:
        further["diffcomp"] = {"similarity": inputs.look.means}
    write_json(out / "metrics.json", {**own, **public.metrics, "orders": orders, **further})
    plots.write_recall_csv(out / "plots" / "recall.csv", curves)
    for name, log in logs.items():
        plots.write_loss_csv(out / "plots" / f"loss_{name}.csv", log)
    tables = markdown([recall_table(metrics[first.name], intervals), *protocols]) + public_markdown(public.comparisons)
    _write(out / "tables" / "results.md", tables.encode())
    if ablations:
        _write(out / "tables" / "ablations.md", markdown([ablation_table(ablation) for ablation in ablations]).encode())
    for name, strip_of in maps.items():
        _write(out / "figures" / f"{name}.png", strip_of)
    _write(out / "figures" / "queries.png", query_strip(answers, strip, featured(answers), pictures))
    _write(out / "figures" / "recall.png", plots.as_png(plots.recall_chart(curves, legend=True), "print"))
    _write(out / "index.html", page.encode())


def _read(benchmark: Benchmark) -> tuple[Answers, Answers | None]:
    answers = Answers.read(benchmark.queries, benchmark.rankings)
    if benchmark.genecis_queries is None or benchmark.genecis_rankings is None:
        return answers, None
    return answers, Answers.read(benchmark.genecis_queries, benchmark.genecis_rankings)


def _shown(answers: Answers, rows: list[int]) -> set[str]:
    """The images of these queries in the figure: references and the first answers."""
    wanted = {answers.queries[row].reference_id for row in rows}
    return wanted.union(*(answers.ranked(method)[row][:SHOWN] for row in rows for method in featured(answers)))


def _write(path: Path, content: bytes) -> None:
    with write_atomically(path) as aside:
        aside.write_bytes(content)
