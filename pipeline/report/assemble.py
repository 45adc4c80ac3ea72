"""From ranked lists to everything under `reports/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, ShardSet, write_atomically, write_json
from pipeline.experiments.ablation.tables import TABLES
from pipeline.query.fusion_diff import FUSION_DIFF
from pipeline.report import plots
from pipeline.report.ablations import Ablation, ablation_table, read_ablations, read_trials
from pipeline.report.diffcomp_view import DiffCompView
from pipeline.report.explorer import explorer
from pipeline.report.figures import SHOWN, image_rows, map_strip, query_strip
from pipeline.report.imagined import Features, compared, fidelity_rows, imagined_rows, shown_images
from pipeline.report.metrics import (
    RankedQueries,
    benchmark_metrics,
    claimed_orders,
    kind_intervals,
    method_intervals,
    read_similarities,
    recall_curves,
)
from pipeline.report.names import CLAIMED_ORDERS
from pipeline.report.page import Page, render_page
from pipeline.report.peers import peers_table
from pipeline.report.public import PublicReport, PublicSplitPaths, public_report
from pipeline.report.public import markdown as public_markdown
from pipeline.report.reranked import Reranked, read_reranked, reranking_table
from pipeline.report.samples import featured, figure_queries
from pipeline.report.seeds import seeds_tables
from pipeline.report.sweeps import read_sweeps
from pipeline.report.tables import Table, markdown, protocol_tables, recall_table
from pipeline.report.thumbnails import load_images
from pipeline.rerank.outputs import COST
from pipeline.retrieval.bootstrap import Interval

FIGURE_ROWS = 6
BASELINE = "slerp"
"""The method without training beside the featured ones in `summary.json`."""


@dataclass(frozen=True)
class BenchmarkPaths:
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
    reranked: Path | None = None
    """What the stage `rerank` has written of it; None, or a folder that is not there: nothing was verified."""


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made from. The first benchmark is the one that the page shows in full."""

    benchmarks: Sequence[BenchmarkPaths]
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
    peers: Path | None = None
    """A folder with the scores of the peers that were trained here (see `peers_table`)."""
    seeds: Path | None = None
    """A folder with scores over several training seeds (see `seeds_tables`)."""
    diffcomp_view: DiffCompView | None = None
    """What the trained DiffComp sees."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the `prior` and the `control` of this run: a sweep of others is marked as such."""
    used: Mapping[str, float] = field(default_factory=dict)
    """Swept parameter -> its value in this run."""
    seed: int = 0
    bootstrap: int = 1000
    page_megabytes: float = 7.0
    orders: Sequence[tuple[str, str]] = CLAIMED_ORDERS
    public: Sequence[PublicSplitPaths] = ()
    """What of the public benchmarks was answered; scored by their own protocols, whatever `benchmarks` holds."""
    features: Features | None = None
    """What decodes features of the first benchmark's queries."""
    fidelity: Mapping[str, Any] = field(default_factory=dict)
    """How faithful the decoder is, by benchmark."""
    backbones: Mapping[str, str] = field(default_factory=dict)
    """Space -> the model whose vectors are searched there."""


def changed_parameters(
    values: Mapping[str, Any], profile: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (the profile's value, the value) of every parameter that differs."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key in sorted(values.keys() | profile.keys()):
        before, now = profile.get(key), values.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            changed |= changed_parameters(now, before, f"{prefix}{key}.")
        elif before != now:
            changed[f"{prefix}{key}"] = (before, now)
    return changed


def build_report(inputs: ReportInputs) -> None:
    """Write `metrics.json`, `summary.json`, `plots/`, `tables/`, `figures/` and `index.html` into `inputs.out`.

    Args:
        inputs: What the report is made from.

    Raises:
        ArtifactError: A benchmark, query, image or log is missing or wrong; names it.
    """
    results = _work_out(inputs)
    page, strip = render_page(_page(inputs, results)), _query_strip(inputs, results)
    _write_data(inputs, results)
    out = Path(inputs.out)
    for name, png in results.maps.items():
        _write(out / "figures" / f"{name}.png", png)
    _write(out / "figures" / "queries.png", strip)
    _write(out / "figures" / "recall.png", plots.as_png(plots.recall_chart(results.curves, legend=True), "print"))
    _write(out / "index.html", page.encode())


@dataclass(frozen=True)
class _Results:
    """What several outputs show."""

    images: Path
    """Of the first benchmark, as all that is not by benchmark."""
    answers: RankedQueries
    metrics: dict[str, dict[str, dict[str, Any]]]
    """Benchmark -> method -> metrics."""
    intervals: dict[str, Interval]
    orders: dict[str, dict[str, float]]
    curves: dict[str, dict[int, float]]
    logs: dict[str, dict[str, list[float]]]
    protocols: list[Table]
    reranked: dict[str, Reranked]
    """By benchmark, as far as answers were verified."""
    public: PublicReport
    ablations: list[Ablation]
    peers: list[Table]
    """The one table of the peers, where there is one."""
    seeds: list[Table]
    """Rows over several training seeds."""
    maps: dict[str, bytes]
    """What DiffComp sees, and what features show, as PNG."""


def _maps(view: DiffCompView) -> dict[str, bytes]:
    """Figures 3 and 5 as PNG."""
    return {
        "masks": map_strip(view.masks, ("never masked", "always masked"), limits=(0.0, 1.0)),
        "kept": map_strip(view.kept, ("least kept", "most kept (each image by its own range)")),
    }


def _work_out(inputs: ReportInputs) -> _Results:
    images = inputs.benchmarks[0].images if inputs.benchmarks else None
    if images is None:
        raise ArtifactError("a report needs a benchmark with images")
    read = {benchmark.name: _read(benchmark) for benchmark in inputs.benchmarks}
    metrics = {name: benchmark_metrics(*answers) for name, answers in read.items()}
    first = inputs.benchmarks[0].name
    answers, view, curves = read[first][0], inputs.diffcomp_view, recall_curves(read[first][0])
    maps = _maps(view) if view else {}
    return _Results(
        images,
        answers,
        metrics,
        method_intervals(answers, inputs.bootstrap, inputs.seed),
        claimed_orders(answers, inputs.orders, inputs.bootstrap, inputs.seed),
        curves,
        {name: plots.read_log(path) for name, path in inputs.losses.items()},
        protocol_tables(metrics[first]),
        {
            one.name: read_reranked(one.reranked, one.queries, read[one.name][0], inputs.bootstrap, inputs.seed)
            for one in inputs.benchmarks
            if one.reranked and (one.reranked / COST).is_file()
        },
        public_report(inputs.public, inputs.backbones),
        read_ablations(inputs.ablations, inputs.definitions) if inputs.ablations else [],
        [table for table in [peers_table(inputs.peers) if inputs.peers else None] if table],
        seeds_tables(inputs.seeds) if inputs.seeds else [],
        maps | _imagined(inputs, answers, images, curves),
    )


def _page(inputs: ReportInputs, results: _Results) -> Page:
    first, answers = inputs.benchmarks[0], results.answers
    by_kind = kind_intervals(answers, inputs.bootstrap, inputs.seed)
    budget = int(inputs.page_megabytes * 1e6)
    return Page(
        profile=inputs.profile,
        seed=inputs.seed,
        changed=inputs.changed,
        benchmark=first.name,
        answers=answers,
        gallery_size=ShardSet.open(results.images, verify=False).rows,
        metrics=results.metrics[first.name],
        tables=[
            recall_table(results.metrics[first.name], results.intervals, by_kind),
            *results.protocols,
            *(reranking_table(name, found) for name, found in results.reranked.items()),
            *results.peers,
            *results.seeds,
        ],
        orders=results.orders,
        curves=results.curves,
        logs=results.logs,
        sweeps=read_sweeps(inputs.sweeps) if inputs.sweeps else [],
        weights=inputs.weights,
        used=inputs.used,
        similarities=read_similarities(first.similarities) if first.similarities else {},
        explorer=explorer(answers, results.images, inputs.descriptions, inputs.seed, budget),
        further={benchmark.name: recall_table(results.metrics[benchmark.name]) for benchmark in inputs.benchmarks[1:]},
        public=results.public.comparisons,
        ablations=results.ablations,
        trials=read_trials(inputs.ablations) if inputs.ablations else [],
        diffcomp_view=inputs.diffcomp_view,
        maps=results.maps,
        fidelity=fidelity_rows(inputs.fidelity),
    )


def _imagined(
    inputs: ReportInputs, answers: RankedQueries, images: Path, curves: Mapping[str, Mapping[int, float]]
) -> dict[str, bytes]:
    """The figure of what the features of sample queries show; nothing without a decoder."""
    if inputs.features is None or FUSION_DIFF not in answers.by_method or not inputs.features.queries:
        return {}
    rows = figure_queries(answers, inputs.features.queries, inputs.seed)
    methods = compared(answers, {name: curve[10] for name, curve in curves.items()})
    found = load_images(images, shown_images(answers, rows, methods))
    return {"imagined": image_rows(imagined_rows(answers, rows, inputs.features, found, inputs.descriptions, methods))}


def _query_strip(inputs: ReportInputs, results: _Results) -> bytes:
    """The figure of sample queries."""
    rows = figure_queries(results.answers, FIGURE_ROWS, inputs.seed)
    images = load_images(results.images, _shown(results.answers, rows))
    return query_strip(results.answers, rows, featured(results.answers), images)


def _write_data(inputs: ReportInputs, results: _Results) -> None:
    """Metrics, the plots' data and the tables."""
    out, first, public = Path(inputs.out), inputs.benchmarks[0].name, results.public
    own = {name: scores for name, scores in results.metrics.items() if name not in public.names}
    further: dict[str, Any] = {"index": inputs.index} if inputs.index else {}
    if inputs.diffcomp_view is not None:
        further["diffcomp"] = {"similarity": inputs.diffcomp_view.means, "order": inputs.diffcomp_view.order}
    if results.reranked:
        further["rerank"] = {name: found.metrics for name, found in results.reranked.items()}
        tables = [reranking_table(name, found) for name, found in results.reranked.items()]
        _write(out / "tables" / "reranking.md", markdown(tables).encode())
    if inputs.fidelity:
        further["decoder"] = dict(inputs.fidelity["benchmarks"])
    write_json(out / "metrics.json", {**own, **public.metrics, "orders": results.orders, **further})
    write_json(out / "summary.json", _summary(results))
    plots.write_recall_csv(out / "plots" / "recall.csv", results.curves)
    for name, log in results.logs.items():
        plots.write_loss_csv(out / "plots" / f"loss_{name}.csv", log)
    tables = [recall_table(results.metrics[first], results.intervals), *results.protocols]
    _write(out / "tables" / "results.md", (markdown(tables) + public_markdown(public.comparisons)).encode())
    if results.peers:
        _write(out / "tables" / "peers.md", markdown(results.peers).encode())
    if results.seeds:
        _write(out / "tables" / "seeds.md", markdown(results.seeds).encode())
    if results.ablations:
        ablations = markdown([ablation_table(ablation) for ablation in results.ablations])
        _write(out / "tables" / "ablations.md", ablations.encode())


def _summary(results: _Results) -> dict[str, dict[str, float]]:
    """What DVC compares: the mean R@10 of few methods on the first benchmark."""
    shown = [*featured(results.answers), BASELINE]
    return {"R@10": {method: curve[10] for method, curve in results.curves.items() if method in shown}}


def _read(benchmark: BenchmarkPaths) -> tuple[RankedQueries, RankedQueries | None]:
    answers = RankedQueries.read(benchmark.queries, benchmark.rankings)
    if benchmark.genecis_queries is None or benchmark.genecis_rankings is None:
        return answers, None
    return answers, RankedQueries.read(benchmark.genecis_queries, benchmark.genecis_rankings)


def _shown(answers: RankedQueries, rows: list[int]) -> set[str]:
    """The images of these queries in the figure: references and the first answers."""
    wanted = {answers.queries[row].reference_id for row in rows}
    return wanted.union(*(answers.ranked(method)[row][:SHOWN] for row in rows for method in featured(answers)))


def _write(path: Path, content: bytes) -> None:
    with write_atomically(path) as aside:
        aside.write_bytes(content)
