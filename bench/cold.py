"""How long `cir` takes from the start of its process to its end.

    python -m bench.cold [--repeats 10]

The models and the index are those that `dvc repro` made. The commands take turns, so that other work on the machine
falls on all of them. `reports/bench/cold.json` has seconds of the clock and of the processor. A first round, which
compiles Python's modules and fills the system's cache of files, is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from bench.machine import hardware, versions
from pipeline.artifacts import write_json
from pipeline.config import load_params

CIR = (sys.executable, "-m", "pipeline.app.cli.main")
WORDS = ("--text", "in brown")
COMMANDS = {
    "cir --help": (("--help",), 0),
    "cir --version": (("--version",), 0),
    "a wrong path": (("search", "--image", "missing.png", *WORDS), 1),
    "a wrong method": (("search", "--image", "twemoji/2764", *WORDS, "--method", "missing"), 1),
    "a search": (("search", "--image", "twemoji/2764", *WORDS), 0),
    "a search by slerp": (("search", "--image", "twemoji/2764", *WORDS, "--method", "slerp"), 0),
}
"""Name -> the arguments of `cir`, and its exit status."""


def measure(arguments: tuple[str, ...], status: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor. Raises RuntimeError if the command ends otherwise than it should."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([*CIR, *arguments], capture_output=True, text=True, env=kept)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != status:
        raise RuntimeError(f"cir {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def take_turns(repeats: int) -> dict[str, dict[str, float]]:
    """Command -> its median, fastest and slowest time."""
    rounds = [{name: measure(*command) for name, command in COMMANDS.items()} for _ in range(repeats + 1)][1:]
    found = {}
    for name in COMMANDS:
        clock, processor = zip(*(one[name] for one in rounds), strict=True)
        found[name] = {
            "median_s": round(median(clock), 3),
            "fastest_s": round(min(clock), 3),
            "slowest_s": round(max(clock), 3),
            "median_cpu_s": round(median(processor), 3),
        }
    return found


def main(
    repeats: Annotated[int, typer.Option(help="Rounds that count.", min=1)] = 10,
    out: Annotated[Path, typer.Option(help="The result.")] = Path("reports/bench/cold.json"),
) -> None:
    result: dict[str, Any] = {
        "command": f"python -m bench.cold --repeats {repeats}",
        "profile": load_params().profile,
        "hardware": hardware(),
        "versions": versions("torch", "transformers", "diffusers"),
        "load_at_start": [round(value, 1) for value in os.getloadavg()[:2]],
        "commands": take_turns(repeats),
    }
    write_json(out, result)
    typer.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    typer.run(main)
