"""Rehearse a profile: python -m bench.rehearsal --profile lab. Writes reports/bench/rehearsal.json.

Every stage of the graph runs by its own command, in the graph's order, in a scratch folder. A rehearsal goes on where
it stopped: a stage that is done is not run again, unless one that it depends on was, or it is named with --stages.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bench.machine import hardware, versions
from bench.rehearsal.card import hold_back, share_out
from bench.rehearsal.compose import FULL, TINY, Counts, compose, write_models
from bench.rehearsal.data import write_data
from bench.rehearsal.measure import run
from bench.rehearsal.whole import whole_profile
from pipeline.app.inventory.needs import mllm_sections
from pipeline.config import Params, load_profile, params_from_dict

ROOT = Path(__file__).parents[2]
LINKED = ("conf", "ablations", "dvc.yaml", "pipeline", "stages", "bench")
PACKAGES = ("torch", "transformers", "accelerate", "pyarrow")

app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0913 (one option an argument)
    profile: Annotated[str, typer.Option(help="The profile that is rehearsed.")] = "lab",
    scratch: Annotated[Path, typer.Option(help="Where models, data and results go.")] = Path("rehearsal"),
    out: Annotated[Path, typer.Option(help="The report; other profiles' entries in it stay.")] = Path(
        "reports/bench/rehearsal.json"
    ),
    stages: Annotated[str, typer.Option(help="Stages to run, also if done, by commas. Default: those not done.")] = "",
    tiny: Annotated[bool, typer.Option(help="The same classes in tiny sizes, for a CPU.")] = False,
    minutes: Annotated[float, typer.Option(help="No further stage begins after so many.")] = 9.0,
    card: Annotated[float, typer.Option(help="GiB of the GPU to rehearse for, if this one has more.")] = 0.0,
) -> None:
    began = time.perf_counter()
    try:
        held, left = hold_back(card)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    counts, original, scratch = TINY if tiny else FULL, load_profile(profile, ROOT / "conf"), scratch.resolve()
    goes_on = (scratch / "params.yaml").is_file()
    entry = lay_out(original, scratch, counts, tiny, left) | ({"card_gib": card} if card else {})
    deadline = began + 60 * minutes
    report = json.loads(out.read_text()) if out.is_file() else {}
    before = report.get(profile, {})
    if goes_on and before.get("tiny") == tiny:
        entry["stages"] = before.get("stages", {})
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    chosen = [name for name, stage in graph.items() if not stage.get("frozen")]
    made_anew = set[str]()
    for name in chosen:
        before = entry["stages"].get(name, {"error": ""})
        wanted = name in stages.split(",") if stages else "error" in before or needs(graph[name], made_anew)
        left = deadline - time.perf_counter()
        if wanted and left > 0:
            print(f"--- {name}", flush=True)
            facts = rehearse_stage(graph[name], scratch, left)
            entry["stages"][name] = together(before, facts) if persists(graph[name]) else facts
            made_anew |= set(outputs(graph[name]))
            report[profile] = entry | whole_profile(original, entry, counts, chosen)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(report, indent=2) + "\n")
            print(json.dumps({name: entry["stages"][name]}), flush=True)
    del held  # all stages ran beside it
    failed = [name for name in chosen if "error" in entry["stages"].get(name, {"error": "not run"})]
    print(
        f"{profile}: {len(chosen) - len(failed)} of {len(chosen)} stages are done" + (f"; not {failed}" * bool(failed))
    )
    raise SystemExit(bool(failed))


def lay_out(params: Params, scratch: Path, counts: Counts, tiny: bool, left: float) -> dict[str, Any]:
    """Models, data and `params.yaml` in the scratch folder, and the head of the report's entry.

    Args:
        params: The profile.
        scratch: The folder.
        counts: How much is made.
        tiny: Models in sizes for a CPU.
        left: The share of the GPU's memory that stages may take.
    """
    began = time.perf_counter()
    for name in LINKED:
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        if not (scratch / name).exists():
            (scratch / name).symlink_to(ROOT / name)
    for name in ("reports/ablations", "reports/peers", "reports/seeds", "reports/sweeps"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    models = write_models(params, scratch, tiny)
    marker = scratch / "data" / "raw" / "made.json"
    sources = list(params.data.web.pairs)
    made = json.dumps({"amounts": vars(counts.amounts), "sources": sources})
    if not marker.is_file() or marker.read_text() != made:
        shutil.rmtree(scratch / "data", ignore_errors=True)
        write_data(scratch / "data" / "raw", sources, counts.amounts)
        marker.write_text(made)
    values = compose(params, models, counts, tiny)
    share_out([values[name] for name in mllm_sections(params)], left)
    params_from_dict(values, "the rehearsal's parameters")
    (scratch / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    facts = {name: {key: value for key, value in made.items() if key != "path"} for name, made in models.items()}
    return {
        "command": "python -m " + " ".join(["bench.rehearsal", *sys.argv[1:]]),
        "tiny": tiny,
        "hardware": hardware() | {"gpu": _gpu()},
        "versions": versions(*PACKAGES),
        "counts": vars(counts.amounts) | {"steps": counts.steps, "caption_tokens": counts.tokens},
        "models": facts,
        "lay_out_seconds": round(time.perf_counter() - began, 1),
        "stages": {},
    }


def outputs(stage: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A stage's outputs, with what `dvc.yaml` says of each."""
    found: dict[str, dict[str, Any]] = {}
    for out in stage.get("outs", []):
        found |= {out: {}} if isinstance(out, str) else {name: options or {} for name, options in out.items()}
    return found


def persists(stage: dict[str, Any]) -> bool:
    """Whether a stage goes on with what a run that failed has left."""
    return any(options.get("persist") for options in outputs(stage).values())


def needs(stage: dict[str, Any], made: set[str]) -> bool:
    """Whether a stage depends on one of some outputs, on a part of one, or on a folder that holds one."""
    pairs = [(Path(dep), Path(out)) for dep in stage.get("deps", []) for out in made]
    return any(dep.is_relative_to(out) or out.is_relative_to(dep) for dep, out in pairs)


def together(failed: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """What a stage took that failed and then went on: the work that was done the first time is not done again.

    Args:
        failed: Of the first time; anything else than a failure counts for nothing.
        facts: Of the second.
    """
    if not failed.get("error") or "error" in facts or "bars" not in failed:
        return facts
    peaks = {name: max(failed[name], facts[name]) for name in facts if name.startswith(("peak_", "largest_"))}
    seconds = round(failed["seconds"] + facts["seconds"], 1)
    return facts | peaks | {"seconds": seconds, "bars": failed["bars"] | facts["bars"], "went_on": True}


def rehearse_stage(stage: dict[str, Any], scratch: Path, limit: float) -> dict[str, Any]:
    """Run a stage as DVC would, which removes its outputs first unless they persist."""
    outs = outputs(stage)
    for name, options in outs.items():
        path = scratch / name
        if not options.get("persist"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    facts = run(stage["cmd"], scratch, {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}, limit)
    sizes = {name: _bytes(scratch / name) for name in outs}
    return facts | {"bytes": sum(sizes.values())}


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


if __name__ == "__main__":
    app()
