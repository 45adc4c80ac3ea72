"""What scoring costs: `cir score circo` and `cir submit circo` on lists of CIRCO's test size.

    python -m bench.score

800 queries with made-up ground truths, as many images as COCO 2017 unlabeled has, and a ranked list of 1,000
of them for each query. `reports/bench/score.json` has seconds of the clock and of the processor, and the peak
memory, of each command in a process of its own.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.machine import hardware, versions
from pipeline.artifacts import write_json

QUERIES, IMAGES, LISTED, MOST_TRUTHS = 800, 123_403, 1000, 21
ASPECTS = ("cardinality", "addition", "negation", "direct_addressing")


def write_annotations(folder: Path, numbers: list[int], rng: random.Random) -> None:
    """Both splits, in the official layout, with COCO's list of images."""
    rows = []
    for number in range(QUERIES):
        truths = rng.sample(numbers, rng.randint(2, MOST_TRUTHS))
        rows.append(
            {
                "id": number,
                "reference_img_id": numbers[number],
                "relative_caption": "has a dog",
                "shared_concept": "a street",
                "target_img_id": truths[0],
                "gt_img_ids": truths,
                "semantic_aspects": rng.sample(ASPECTS, 2),
            }
        )
    listed = folder / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
    for path, content in (
        (folder / "annotations/val.json", rows),
        (listed, {"images": [{"id": number} for number in numbers]}),
        (folder / "annotations/test.json", [{key: row[key] for key in list(row)[:4]} for row in rows]),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def measure(*command: str) -> dict[str, Any]:
    """Run one `cir` command to its end. Raises CalledProcessError when it fails."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline.app.cli.main", *command], check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest child so far
    return {"seconds": round(seconds, 2), "cpu_s": round(spent, 2), "peak_memory_mib": round(peak)}


def main(out: Annotated[Path, typer.Option(help="The result.")] = Path("reports/bench/score.json")) -> None:
    rng = random.Random(0)
    numbers = sorted(rng.sample(range(1, 600_000), IMAGES))
    load = [round(value, 1) for value in os.getloadavg()[:2]]
    with tempfile.TemporaryDirectory() as place:
        folder, lists = Path(place) / "circo", Path(place) / "lists.json"
        write_annotations(folder, numbers, rng)
        lists.write_text(json.dumps({str(query): rng.sample(numbers, LISTED) for query in range(QUERIES)}))
        shared = ("circo", "--annotations", str(folder), "--predictions", str(lists))
        result = {
            "score": measure("score", *shared, "--split", "val"),
            "submit": measure("submit", *shared, "--out", str(Path(place) / "out")),
        }
    write_json(
        out,
        {
            "command": "python -m bench.score",
            "queries": QUERIES,
            "images": IMAGES,
            "listed": LISTED,
            "hardware": hardware(),
            "versions": versions("numpy"),
            "load_at_start": load,
            **result,
        },
    )
    typer.echo(json.dumps(result))


if __name__ == "__main__":
    typer.run(main)
