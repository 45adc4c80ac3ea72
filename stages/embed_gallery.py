"""embed_gallery: every benchmark's images -> data/gallery/<benchmark>/<space>."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.config import load_params
from pipeline.errors import run_stage
from pipeline.query.models import Models
from pipeline.query.registry import spaces
from pipeline.retrieval.benchmarks import find_benchmarks
from pipeline.runtime import set_up

FOLDER = Path("data/gallery")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    benchmarks = [benchmark for benchmark in find_benchmarks() if benchmark.gallery == benchmark.name]
    galleries = spaces(Models(params))
    keep = {FOLDER / benchmark.name / space for benchmark in benchmarks for space in galleries}
    for stale in set(FOLDER.glob("*/*")) - keep:
        shutil.rmtree(stale)
    for name, space in galleries.items():
        for benchmark in benchmarks:
            space.embed_table(benchmark.images, FOLDER / benchmark.name / name)


if __name__ == "__main__":
    run_stage(main)
