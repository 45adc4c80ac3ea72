"""prepare: raw sources -> data/pairs, data/triplets, data/benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.app.errors import run_stage
from pipeline.artifacts import write_table
from pipeline.config import PUBLIC_BENCHMARKS, ParameterError, as_dict, load_params
from pipeline.sources.benchmarks.tables import public_tables
from pipeline.sources.emoji import build_tables
from pipeline.sources.emoji.fetch import PACKAGES

DATA, BENCHMARKS = Path("data"), "benchmarks"


def main() -> None:
    params = load_params()
    if params.data.sources != "emoji":
        raise ParameterError(f"data.sources: {params.data.sources!r} is not a source that this stage reads (emoji)")
    identity = {
        "source": "emoji-cir",
        "packages": [f"{package.name}@{package.version}" for package in PACKAGES],
        "data": {name: value for name, value in as_dict(params.data).items() if name not in ("benchmarks", *PUBLIC_BENCHMARKS)},
        "seed": params.seed,
    }
    public = list(public_tables(params.data))  # before anything is written: their images may be missing
    for folder, table in build_tables(params.data, params.seed).items():
        if "emoji_cir" in params.data.benchmarks or not folder.startswith(BENCHMARKS):
            write(folder, table, identity)
    for folder, table, made_by in public:
        write(f"{BENCHMARKS}/{folder}", table, made_by)


def write(folder: str, table: pa.Table, identity: dict[str, Any]) -> None:
    manifest = write_table(DATA / folder, table, identity)
    print(f"{folder:40s}{manifest.rows:8d} rows")


if __name__ == "__main__":
    run_stage(main)
