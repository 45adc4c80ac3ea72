"""What it costs to train on a folder and a CSV, and to search with the result.

    python -m bench.own_data --images 1000

It needs `data/pairs`, which `dvc repro prepare` makes: its images with short captions stand for a person's own. The
stages run by their own commands in a scratch folder, with the parameters that `docs/tutorials/train-on-your-data.md`
gives to DVC. `reports/bench/own_data.json` has seconds of the clock and of the processor and the memory of each step,
and the table of it is printed.
"""

from __future__ import annotations

import csv
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bench.machine import hardware, versions
from bench.rehearsal.measure import run
from pipeline.artifacts import ShardSet, write_json
from pipeline.config import Params, as_dict, load_profile

PROJECT = Path(__file__).parents[1]
STAGES = ("prepare", "extract_text", "embed_fused", "train_prior", "train_control_adapter")
STEPS = (*STAGES, "cir index", "cir search")
METHODS = ("stage1_only", "fused_description")
LIMIT = 3 * 3600.0
"""Seconds that one step may take."""


def write_folder(folder: Path, count: int) -> int:
    """Images and their CSV, from the default's pairs. Returns how many there are."""
    pairs = ShardSet.open(PROJECT / "data/pairs/pairs").table(["image_id", "caption", "caption_kind"]).to_pylist()
    captions = {row["image_id"]: row["caption"] for row in pairs if row["caption_kind"] == "short"}
    images = ShardSet.open(PROJECT / "data/pairs/images").table(["image_id", "bytes"]).slice(0, count).to_pylist()
    folder.mkdir(parents=True)
    with open(folder / "captions.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for image in images:
            name = f"{image['image_id'].replace('/', '_')}.png"
            (folder / name).write_bytes(image["bytes"])
            rows.writerow([name, captions[image["image_id"]]])
    return len(images)


def own_params(profile: str) -> Params:
    """The profile's parameters for a folder without edits and without a benchmark."""
    params = load_profile(profile, PROJECT / "conf")
    params.data.sources, params.data.benchmarks = "web", []
    params.data.web.pairs, params.data.web.edits = ["folder"], []
    return params


def lay_out(scratch: Path, params: Params) -> None:
    """The project's code and shipped models in a folder of its own, which later changes of the code do not reach."""
    for name in ("pipeline", "stages", "conf", "models/backbones"):
        shutil.copytree(PROJECT / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "dvc.yaml", scratch)
    (scratch / "params.yaml").write_text(yaml.safe_dump(as_dict(params)), encoding="utf-8")


def commands(image: str) -> dict[str, str]:
    """Step -> its command."""
    python, methods = sys.executable, " ".join(f"--method {name}" for name in METHODS)
    cir = f"{python} -m pipeline.app.cli.main"
    search = f'search --gallery data/raw/folder --image data/raw/folder/{image} --text "in brown" {methods}'
    stages = {stage: f"{python} -m stages.{stage}" for stage in STAGES}
    return {**stages, "cir index": f"{cir} index data/raw/folder {methods}", "cir search": f"{cir} {search}"}


def measure(scratch: Path, params: Params, images: int) -> dict[str, Any]:
    """Step -> its seconds, the processor's, and its memory. Raises RuntimeError naming the step that fails.

    Args:
        scratch: An empty folder, where the steps run.
        params: What they run with.
        images: How many there are to be.
    """
    folder = scratch / "data/raw/folder"
    lay_out(scratch, params)
    count = write_folder(folder, images)
    first, steps = min(path.name for path in folder.glob("*.png")), {}
    for step, command in commands(first).items():
        before = _processor()
        facts = run(command, scratch, {**os.environ, "PYTHONPATH": str(scratch)}, LIMIT)
        if facts.get("error"):
            raise RuntimeError(f"{step}: {facts['error']}")
        steps[step] = {
            "seconds": facts["seconds"],
            "processor_seconds": round(_processor() - before, 1),
            "peak_gib": facts["peak_host_gib"],
        }
        typer.echo(f"{step}: {steps[step]}", err=True)
    return {"images": count, "steps": steps}


def _processor() -> float:
    """Seconds of the processor that the commands so far have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(report: dict[str, Any]) -> str:
    """The report as a table in Markdown."""
    steps = {f"`{step}`": report["steps"][step] for step in STEPS if step in report["steps"]}
    total = {fact: sum(facts[fact] for facts in steps.values()) for fact in ("seconds", "processor_seconds")}
    steps["all"] = {**total, "peak_gib": max(facts["peak_gib"] for facts in steps.values())}
    rows = (
        f"| {step} | {facts['seconds']:.0f} | {facts['processor_seconds']:.0f} | {facts['peak_gib']:.1f} |"
        for step, facts in steps.items()
    )
    return "\n".join(["| step | seconds | processor's seconds | memory, GiB |", "| --- | ---: | ---: | ---: |", *rows])


def main(
    images: Annotated[int, typer.Option(help="How many.")] = 1_000,
    profile: Annotated[str, typer.Option(help="A profile whose models are there.")] = "offline",
    out: Annotated[Path, typer.Option(help="The result.")] = Path("reports/bench/own_data.json"),
) -> None:
    made_by = {
        "command": f"python -m bench.own_data --images {images} --profile {profile}",
        "hardware": hardware(),
        "versions": versions("torch", "transformers"),
        "load_at_start": [round(value, 1) for value in os.getloadavg()[:2]],
    }
    with tempfile.TemporaryDirectory() as scratch:
        report = made_by | measure(Path(scratch), own_params(profile), images)
    write_json(out, report)
    typer.echo(table(report))


if __name__ == "__main__":
    typer.run(main)
