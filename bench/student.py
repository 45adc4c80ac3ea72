"""Distil the prior with several seeds and score the students beside their teacher: python -m bench.student

It wants a clone in which `dvc repro` has run. Every seed gets a folder below `data/seeds`, in which the stage
`distill_prior` trains. What is trained already is not trained again. A seed is also that of the noise, which the
teacher and the student share.

`reports/seeds/student.json` has the tables that the report shows, and every query's rank in every run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench.machine import hardware, versions
from bench.seeds import KS, METRICS, OUT, SCRATCH, lay_out, metrics, numbers, over, ranks, row_of
from pipeline.artifacts import write_json
from pipeline.config import Params, RetrieveParams, load_params
from pipeline.distill import StudentSampler, StudentSettings
from pipeline.distill.checkpoints import load_student
from pipeline.errors import report_user_errors
from pipeline.experiments.sweep import SweepInputs, SweepPaths
from pipeline.fusion_diff import Sampler, SamplerSettings, TargetSampler
from pipeline.fusion_diff.anchor import towards
from pipeline.query.fusion_diff import FUSED_DESCRIPTION, STUDENT
from pipeline.query.sampling import Draws, draw_targets
from pipeline.report.metrics import RankedQueries
from pipeline.report.names import benchmark_label
from pipeline.retrieval import rank_queries
from pipeline.runtime import device, set_up
from stages import distill_prior

INPUTS = ("data/fused", "data/texts", "data/triplets", "models/backbones", "models/prior", "models/control")
"""What of the clone the stage reads."""
TEACHER = "teacher"
PASSES = {1: "student, one pass", 2: "student, two passes"}
FEW = max(PASSES)
"""The steps in which the teacher's own solver is scored beside the student."""
Runs = dict[str, list[RankedQueries]]
"""Setting -> the ranked lists of every seed."""


def settings(retrieve: RetrieveParams, guidance_scale: float) -> dict[str, RetrieveParams]:
    """What is sampled with, by its name: temperature 1 and the parameters' own, without their anchor and with it.

    Args:
        retrieve: The clone's.
        guidance_scale: At temperature 1, where steps matter.
    """
    steered = [(1.0, guidance_scale), (retrieve.temperature, retrieve.guidance_scale)]
    return {
        f"temperature {temperature:g}, guidance {scale:g}, anchor {anchor:g}": replace(
            retrieve, temperature=temperature, guidance_scale=scale, anchor=anchor
        )
        for temperature, scale in dict.fromkeys(steered)
        for anchor in dict.fromkeys((0.0, retrieve.anchor))
    }


@dataclass(frozen=True)
class Scorer:
    """Answers a benchmark's queries with the teacher and with a student of it."""

    inputs: SweepInputs
    """Of the clone: the teacher, the queries, and what the describer and f_M said of them."""
    student: Path
    """Its folder."""

    def run(self, retrieve: RetrieveParams) -> RankedQueries:
        """The ranked lists of the teacher, of its solver in a few steps, and of the student."""
        found = self.inputs
        ranked = {
            name: rank_queries(found.index, found.queries, self._targets(sampler, retrieve), max(KS), retrieve.fuse)
            for name, sampler in self._samplers(retrieve).items()
        }
        return RankedQueries(list(found.queries), ranked)

    def _samplers(self, retrieve: RetrieveParams) -> Mapping[str, TargetSampler]:
        found = self.inputs
        student, jumps = load_student(self.student)
        student.to(device(found.params.runtime))
        walks = {TEACHER: retrieve, few_steps(): replace(retrieve, solver_steps=FEW)}
        own = {name: StudentSettings.from_params(replace(retrieve, passes=count)) for count, name in PASSES.items()}
        return {
            name: Sampler(found.prior, found.adapter, found.diffusion, SamplerSettings.from_params(walked))
            for name, walked in walks.items()
        } | {name: StudentSampler(student, jumps, given) for name, given in own.items()}

    def _targets(self, sampler: TargetSampler, retrieve: RetrieveParams) -> Any:
        """Targets [Q, K, d], as the retrieve stage samples them."""
        found, ids = self.inputs, [query.query_id for query in self.inputs.queries]
        control = found.anchor if found.params.control.signal == FUSED_DESCRIPTION else found.fused
        targets = draw_targets(sampler, ids, found.texts, control, Draws.from_params(retrieve, found.params.seed))
        return towards(torch.from_numpy(targets), found.anchor, retrieve.anchor).numpy()


def few_steps() -> str:
    """The row of the teacher's solver in as few steps as the student has passes."""
    return f"{TEACHER} in {FEW} steps"


def result(benchmark: str, seeds: list[int], runs: Runs, params: Params) -> dict[str, Any]:
    """What `reports/seeds` keeps: a table a setting.

    Args:
        benchmark: Whose queries were answered.
        seeds: One a run.
        runs: Their ranked lists.
        params: The clone's.
    """
    tables = {}
    for name, own in runs.items():
        rows = {method: row_of(own, method, (TEACHER,), params.report.bootstrap) for method in own[0].by_method}
        kept = {
            method: {
                str(seed): " ".join(map(str, ranks(run.ranked(method), run.targets)))
                for seed, run in zip(seeds, own, strict=True)
            }
            for method in rows
        }
        tables[f"{benchmark_label(benchmark)}, {name}"] = {"rows": rows, "ranks": kept}
    return {
        "title": "Student by training seed",
        "note": f"The teacher takes {params.retrieve.solver_steps} guided steps. It is trained once: its seeds are "
        "those of the noise, which the student shares.",
        "seeds": seeds,
        "trained": list(PASSES.values()),
        "columns": [*METRICS, "spread", over(TEACHER)],
        "benchmarks": tables,
        "profile": params.profile,
        "hardware": {**hardware(), "gpu": torch.cuda.get_device_name() if device(params.runtime) == "cuda" else None},
        "versions": versions("torch", "transformers"),
    }


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@report_user_errors()
def main(
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings, with commas.")] = "0,1,2",
    benchmark: Annotated[str, typer.Option(help="What they are scored on; the sweeps' by default.")] = "",
    guidance: Annotated[float, typer.Option(help="The guidance scale at temperature 1.")] = 2.5,
    out: Annotated[Path, typer.Option(help="The folder of the result.")] = OUT,
) -> None:
    """Train, score, and write the JSON file, again after every seed."""
    params = load_params()
    taught = replace(params, distill=replace(params.distill, enabled=True))
    scored = benchmark or params.sweep.benchmark
    inputs = SweepInputs.load(params, SweepPaths.of(scored))
    done: list[int] = []
    runs: Runs = {name: [] for name in settings(params.retrieve, guidance)}
    for seed in numbers(seeds):
        folder = SCRATCH / "student" / str(seed)
        lay_out(folder, taught, seed, INPUTS)
        with contextlib.chdir(folder):
            distill_prior.main()
        set_up(params.runtime, seed)
        scorer = Scorer(replace(inputs, params=replace(params, seed=seed)), folder / STUDENT)
        done.append(seed)
        for name, retrieve in settings(params.retrieve, guidance).items():
            runs[name].append(scorer.run(retrieve))
            typer.echo(f"seed {seed}, {name}: {told(runs[name][-1])}")
        write_json(out / "student.json", result(scored, done, runs, params))


def told(run: RankedQueries) -> str:
    """Mean R@10 by method, for the terminal."""
    return ", ".join(f"{method} {metrics(run, method)['R@10']:.1f}" for method in run.by_method)


if __name__ == "__main__":
    app()
