"""prepare: raw sources -> data/pairs, data/triplets, data/benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.artifacts import write_table
from pipeline.artifacts.rejections import REJECTED, read_rejections, summarise
from pipeline.config import PUBLIC_BENCHMARKS, ParameterError, Params, as_dict, load_params
from pipeline.errors import run_stage
from pipeline.sources import web
from pipeline.sources.benchmarks.tables import public_tables
from pipeline.sources.emoji import build_tables
from pipeline.sources.emoji.fetch import PACKAGES
from pipeline.sources.files import linked_folders
from pipeline.sources.raw import bring_in

DATA, BENCHMARKS = Path("data"), "benchmarks"


def main() -> None:
    params = load_params()
    bring_in([params.data.raw, *(getattr(params.data, name).folder for name in PUBLIC_BENCHMARKS)])
    public = list(public_tables(params.data))  # before anything is written: their images may be missing
    if params.data.sources == "web":
        if "emoji_cir" in params.data.benchmarks:
            raise ParameterError("data.benchmarks: emoji_cir is made of data.sources emoji")
        for link in linked_folders(Path(params.data.raw)):
            print(
                f"{link} is a linked folder: DVC sees no change behind it; let data.raw name the folder that it lies in"
            )
        for folder, rows in web.build(params.data, params.seed, DATA).items():
            print(f"{folder:40s}{rows:8d} rows")
        for line in summarise(read_rejections(DATA / "pairs" / REJECTED), "images and other files"):
            print(line)
    else:
        emoji(params)
    (DATA / BENCHMARKS).mkdir(exist_ok=True)  # there may be none
    for folder, table, made_by in public:
        write(f"{BENCHMARKS}/{folder}", table, made_by)


def emoji(params: Params) -> None:
    identity = {
        "source": "emoji-cir",
        "packages": [f"{package.name}@{package.version}" for package in PACKAGES],
        "data": {
            name: value
            for name, value in as_dict(params.data).items()
            if name not in ("benchmarks", "web", *PUBLIC_BENCHMARKS)
        },
        "seed": params.seed,
    }
    for folder, table in build_tables(params.data, params.seed).items():
        if "emoji_cir" in params.data.benchmarks or not folder.startswith(BENCHMARKS):
            write(folder, table, identity)


def write(folder: str, table: pa.Table, identity: dict[str, Any]) -> None:
    manifest = write_table(DATA / folder, table, identity)
    print(f"{folder:40s}{manifest.rows:8d} rows")


if __name__ == "__main__":
    run_stage(main)
