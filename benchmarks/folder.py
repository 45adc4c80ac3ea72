"""What it costs to index a folder: python -m benchmarks.folder --pictures 10000. Prints JSON.

The pictures are synthetic, 640 x 480 JPEG, each another one. Memory is the peak resident set of the
process that indexes, sampled as its shards grow.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from PIL import Image


def write_pictures(folder: Path, count: int) -> None:
    """Coarse noise, enlarged: quick to make, and no two are equal."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg", quality=80)


def main(
    pictures: Annotated[int, typer.Option(help="How many.")] = 10_000,
    method: Annotated[str, typer.Option(help="For which method.")] = "slerp",
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pictures"
        write_pictures(folder, pictures)
        command = [sys.executable, "-m", "pipeline.app.cli", "index", str(folder), "--method", method]
        start, process, memory = time.perf_counter(), subprocess.Popen(command, stderr=subprocess.DEVNULL), []
        while process.poll() is None:
            try:
                memory.append(psutil.Process(process.pid).memory_info().rss / 1e6)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
        seconds = time.perf_counter() - start
    thirds = [max(part) for part in np.array_split(memory, 3) if len(part)]
    print(json.dumps({
        "pictures": pictures, "method": method, "exit": process.returncode, "seconds": round(seconds, 1),
        "peak_mb": round(max(memory)), "peak_mb_by_third_of_the_time": [round(one) for one in thirds],
    }))


if __name__ == "__main__":
    typer.run(main)
