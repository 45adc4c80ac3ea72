"""Train with several seeds and score each of them: python -m bench.seeds --seeds 0,1,2

It wants a clone in which `dvc repro` has run, and takes minutes on a GPU. Every seed gets a folder below `data/seeds`
that looks like the clone: the training's inputs are links, `params.yaml` has the seed, and the stages themselves
train, embed and search in it. What is trained already is not trained again.

`reports/seeds/<methods>.json` has the table that the report shows, and every query's rank in every run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from omegaconf import OmegaConf

from bench.machine import hardware, versions
from pipeline.artifacts import ArtifactError, write_json
from pipeline.config import ParameterError, Params, as_dict, load_params
from pipeline.errors import report_user_errors
from pipeline.query.models import Models
from pipeline.query.outputs import BenchmarkRetrieval
from pipeline.query.registry import FAMILIES
from pipeline.report.metrics import RankedQueries
from pipeline.retrieval import protocols
from pipeline.retrieval.benchmarks import find_benchmarks
from pipeline.retrieval.bootstrap import mean_interval, paired_difference
from pipeline.runtime import device, set_up
from stages import build_index, train_control_adapter, train_diffcomp, train_prior

SCRATCH, OUT = Path("data/seeds"), Path("reports/seeds")
GALLERY = Path("data/gallery")
KS, MAP_K, TOLD = (1, 5, 10, 50), 5, 10
"""Recalls, the mean average precision, and the recall that differences and the spread are of."""
METRICS = (*(f"R@{k}" for k in KS), f"mAP@{MAP_K}")


@dataclass(frozen=True)
class Group:
    """Methods that are trained and scored together."""

    title: str
    families: tuple[str, ...]
    stages: tuple[Callable[[], None], ...]
    """What trains, in order."""
    trained: Callable[[Params], Sequence[str]]
    """The methods whose weights a seed decides."""
    against: tuple[str, ...]
    """The methods that they are compared with, each where it is not the method itself."""
    inputs: tuple[str, ...]
    """What of the clone is linked, beside the galleries that no seed changes."""


GROUPS = {
    "diffcomp": Group(
        "DiffComp by training seed",
        ("dual",),
        (train_diffcomp.main,),
        lambda params: list(params.diffcomp_variants),
        ("slerp", "image_text", "diffcomp_row1"),
        ("data/pairs", "data/texts", "data/benchmarks", "models/backbones"),
    ),
    "fusion_diff": Group(
        "Fusion-Diff by training seed",
        ("fusion_diff", "cirevl"),
        (train_prior.main, train_control_adapter.main),
        lambda params: ["stage1_only", "fusion_diff"],
        ("fused_description", "cirevl", "stage1_only", "fused_only"),
        ("data/fused", "data/texts", "data/benchmarks", "models/backbones"),
    ),
}


def lay_out(folder: Path, params: Params, seed: int, inputs: Sequence[str]) -> None:
    """Make a folder look like the clone to the stages, with a seed of its own.

    Args:
        folder: What is there already is kept.
        params: The clone's.
        seed: The training's.
        inputs: Folders of the clone that are linked.

    Raises:
        ArtifactError: One of them is not there.
    """
    links = [Path(name) for name in inputs] + sorted(GALLERY.glob("*/clip")) + sorted(GALLERY.glob("*/fused"))
    for path in links:
        if not path.is_dir():
            raise ArtifactError(f"{path}: not there; `dvc repro` makes it")
        link = folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(path.resolve(), target_is_directory=True)
    OmegaConf.save(OmegaConf.create(as_dict(replace(params, seed=seed))), folder / "params.yaml")


def run_seed(group: Group) -> dict[str, RankedQueries]:
    """Train, embed the galleries, and answer all queries, in the working directory.

    Args:
        group: The methods.

    Returns:
        Benchmark -> every method's ranked lists.
    """
    params = load_params()
    for stage in group.stages:
        stage()
    set_up(params.runtime, params.seed)
    models, benchmarks = Models(params), find_benchmarks()
    models.describer.keeps_texts = True
    opened = [FAMILIES[name].opened() for name in group.families]
    for name, space in {name: space for family in opened for name, space in family.spaces(models).items()}.items():
        for benchmark in benchmarks:
            space.embed_table(benchmark.images, GALLERY / benchmark.gallery / name)
    build_index.main()
    loaded = [family.load(models) for family in opened]
    found = {}
    for benchmark in benchmarks:
        out = Path("data/retrieved") / benchmark.name
        retrieval = BenchmarkRetrieval(params, benchmark, build_index.FOLDER / benchmark.gallery, out)
        retrieval.infer_texts(loaded, models.describer)
        retrieval.run(loaded, models.describer)
        found[benchmark.name] = RankedQueries.read(benchmark.path / "queries", out / "rankings")
    return found


def ranks(ranked: Sequence[Sequence[str]], targets: Sequence[Sequence[str]]) -> list[int]:
    """The rank of each query's best target, from 1; 0 where the list holds none."""
    return [
        next((rank for rank, name in enumerate(names, 1) if name in wanted), 0)
        for names, wanted in zip(ranked, targets, strict=True)
    ]


def metrics(run: RankedQueries, method: str) -> dict[str, float]:
    """The means over kinds of `METRICS`, in percent."""
    ranked, kinds = run.ranked(method), np.array(run.kinds)
    found = protocols.recall_by_category(ranked, run.targets, run.kinds, KS)[protocols.MEAN]
    rows = [np.flatnonzero(kinds == kind) for kind in sorted(set(run.kinds))]
    by_kind = [
        protocols.circo([ranked[row] for row in own], [run.targets[row] for row in own], (MAP_K,)) for own in rows
    ]
    return {**found, f"mAP@{MAP_K}": float(np.mean([scores[f"mAP@{MAP_K}"] for scores in by_kind]))}


def spread(values: Sequence[float]) -> float:
    """The standard deviation over seeds (n - 1); 0 for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def pooled(runs: Sequence[RankedQueries], method: str) -> np.ndarray:
    """Each query's share of seeds that hit, [Q]."""
    return np.mean([run.hits(method, TOLD) for run in runs], axis=0)


def row_of(runs: Sequence[RankedQueries], method: str, others: Sequence[str], samples: int) -> dict[str, Any]:
    """A method's scores over seeds: `seeds` and, in percent, the mean of every metric and what it differs by.

    Args:
        runs: One a seed.
        method: The method.
        others: Methods that it is compared with, query by query.
        samples: Of the bootstrap over queries.
    """
    scores, kinds, own = [metrics(run, method) for run in runs], runs[0].kinds, pooled(runs, method)
    row: dict[str, Any] = {name: shown(float(np.mean([one[name] for one in scores]))) for name in METRICS}
    told = f"R@{TOLD}"
    interval = mean_interval(own, kinds, samples)
    row[told] = shown(interval.estimate, interval.low, interval.high)
    row["spread"] = shown(spread([one[told] for one in scores]))
    row["seeds"] = [round(one[told], 2) for one in scores]
    for other in others:
        if other != method:
            interval = paired_difference(own, pooled(runs, other), kinds, samples)
            row[over(other)] = shown(interval.estimate, interval.low, interval.high)
    return row


def over(other: str) -> str:
    """The column of a difference."""
    return f"R@{TOLD} over {other.replace('_', ' ')}"


def shown(value: float, low: float | None = None, high: float | None = None) -> dict[str, float]:
    """A figure, perhaps with its interval, at three decimals: a table rounds them to one."""
    found = {"value": value} if low is None or high is None else {"value": value, "low": low, "high": high}
    return {name: round(number, 3) + 0.0 for name, number in found.items()}


def result(group: Group, runs: dict[int, dict[str, RankedQueries]], params: Params) -> dict[str, Any]:
    """What `reports/seeds` keeps of a group.

    Args:
        group: The methods.
        runs: Seed -> benchmark -> ranked lists.
        params: The clone's.
    """
    seeds, trained = list(runs), group.trained(params)
    benchmarks = {}
    for name, first in runs[seeds[0]].items():
        own = [run[name] for run in runs.values()]
        rows = {
            method: row_of(own, method, group.against if method in trained else (), params.report.bootstrap)
            for method in first.by_method
        }
        kept = {
            method: {
                str(seed): " ".join(map(str, ranks(run.ranked(method), run.targets)))
                for seed, run in zip(seeds, own, strict=True)
            }
            for method in trained
        }
        benchmarks[name] = {"rows": rows, "ranks": kept}
    return {
        "title": group.title,
        "seeds": seeds,
        "trained": trained,
        "columns": [*METRICS, "spread", *map(over, group.against)],
        "benchmarks": benchmarks,
        "profile": params.profile,
        "hardware": {**hardware(), "gpu": torch.cuda.get_device_name() if device(params.runtime) == "cuda" else None},
        "versions": versions("torch", "transformers"),
    }


def numbers(seeds: str) -> list[int]:
    """The seeds of an option, each once. Raises ParameterError when they are no numbers with commas."""
    try:
        return list(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError:
        raise ParameterError(f"--seeds: {seeds!r} is no list of numbers with commas") from None


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@report_user_errors()
def main(
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings, with commas.")] = "0,1,2",
    only: Annotated[str, typer.Option(help=f"One of {', '.join(GROUPS)}; both by default.")] = "",
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = OUT,
) -> None:
    """Train, score, and write a JSON file a group, again after every seed."""
    if only and only not in GROUPS:
        raise ParameterError(f"--only: {only!r} is not one of {', '.join(GROUPS)}")
    chosen, params = numbers(seeds), load_params()
    for name in [only] if only else GROUPS:
        group, runs = GROUPS[name], {}
        for seed in chosen:
            folder = SCRATCH / name / str(seed)
            lay_out(folder, params, seed, group.inputs)
            with contextlib.chdir(folder):
                runs[seed] = run_seed(group)
            write_json(out / f"{name}.json", result(group, runs, params))
            typer.echo(f"{name}, seed {seed}: {told(runs[seed], group.trained(params))}")


def told(run: dict[str, RankedQueries], methods: Sequence[str]) -> str:
    """Mean R@10 of some methods by benchmark, for the terminal."""
    parts = []
    for benchmark, ranked in run.items():
        scores = ", ".join(f"{method} {metrics(ranked, method)[f'R@{TOLD}']:.1f}" for method in methods)
        parts.append(f"{benchmark} {scores}")
    return "; ".join(parts)


if __name__ == "__main__":
    app()
