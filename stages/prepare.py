"""prepare: raw sources -> data/pairs, data/triplets, data/benchmarks."""

from __future__ import annotations

from pathlib import Path

from pipeline.app.errors import run_stage
from pipeline.artifacts import write_table
from pipeline.config import ParameterError, as_dict, load_params
from pipeline.sources.emoji import build_tables
from pipeline.sources.emoji.fetch import PACKAGES

DATA = Path("data")


def main() -> None:
    params = load_params()
    if params.data.sources != "emoji":
        raise ParameterError(f"data.sources: {params.data.sources!r} is not a source that this stage reads (emoji)")
    identity = {
        "source": "emoji-cir",
        "packages": [f"{package.name}@{package.version}" for package in PACKAGES],
        "data": as_dict(params.data),
        "seed": params.seed,
    }
    for folder, table in build_tables(params.data, params.seed).items():
        manifest = write_table(DATA / folder, table, identity)
        print(f"{folder:36s}{manifest.rows:8d} rows")


if __name__ == "__main__":
    run_stage(main)
