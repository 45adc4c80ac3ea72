"""What it costs to index a folder.

    python -m bench.folder --images 10000

The images are synthetic, 640 x 480 JPEG, each another one. `reports/bench/folder.json` has, for each method,
seconds, and the resident set of the process that indexes: its peak, and the most in each third of the time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from PIL import Image

from bench.machine import hardware, versions
from pipeline.artifacts import write_json


def write_images(folder: Path, count: int) -> None:
    """Coarse noise, enlarged: quick to make, and no two are equal."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg", quality=80)


def measure(folder: Path, method: str) -> dict[str, Any]:
    """`cir index` in a process of its own, watched until it ends. Raises CalledProcessError when it fails."""
    command = [sys.executable, "-m", "pipeline.app.cli.main", "index", str(folder), "--method", method]
    start, began, memory = time.perf_counter(), os.times(), []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            memory.append(watched.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.5)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    seconds, ended = time.perf_counter() - start, os.times()
    spent = ended.children_user + ended.children_system - began.children_user - began.children_system
    thirds = [round(max(part)) for part in np.array_split(memory, 3) if len(part)]
    return {
        "seconds": round(seconds, 1),
        "cpu_s": round(spent, 1),
        "peak_mib": round(max(memory)),
        "peak_mib_by_third_of_the_time": thirds,
    }


def main(
    images: Annotated[int, typer.Option(help="How many.")] = 10_000,
    method: Annotated[list[str] | None, typer.Option(help="For which method (repeatable); default: slerp.")] = None,
    out: Annotated[Path, typer.Option(help="The result.")] = Path("reports/bench/folder.json"),
) -> None:
    methods, load = method or ["slerp"], [round(value, 1) for value in os.getloadavg()[:2]]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        write_images(folder, images)
        found = {name: measure(folder, name) for name in methods}
    options = "".join(f" --method {name}" for name in method or ())
    result = {
        "command": f"python -m bench.folder --images {images}{options}",
        "pictures": images,
        "hardware": hardware(),
        "versions": versions("torch", "pyarrow", "faiss-cpu"),
        "load_at_start": load,
        "methods": found,
    }
    write_json(out, result)
    typer.echo(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
