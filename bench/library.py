"""What it costs to add images to a library, and how every kind of index follows and answers.

    python -m bench.library --images 10000 --add 100

The images are synthetic, 640 x 480 JPEG, each another one. `reports/bench/library.json` has

- the seconds of a whole index, and of additions to it as a share of that: of files that are named, and by looking
  through the folder. Models are loaded before, since a server has them;
- for every kind of index, Milvus Lite among them: seconds until it has followed an addition, milliseconds a search,
  and recall of the first ten answers against exact search.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench.folder import write_images
from bench.machine import hardware, versions
from pipeline.app.search.indexing import Indexer, index_folder, spaces_of
from pipeline.app.search.library import Library
from pipeline.app.search.library_index import open_library_index
from pipeline.artifacts import write_json
from pipeline.config import IndexParams, load_params
from pipeline.query.models import Models
from pipeline.runtime import set_up

KINDS: dict[str, dict[str, Any]] = {
    "flat": {"kind": "flat"},
    "hnsw": {"kind": "hnsw"},
    "ivfpq": {"kind": "ivfpq"},
    "milvus FLAT": {"kind": "milvus", "milvus_index": "FLAT"},
    "milvus HNSW": {"kind": "milvus", "milvus_index": "HNSW"},
}
QUERIES, TOP = 200, 10


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the clock and of processors."""
    start, spent = time.perf_counter(), time.process_time()
    work()
    return {"seconds": round(time.perf_counter() - start, 3), "cpu_s": round(time.process_time() - spent, 3)}


def queries_of(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors [QUERIES, d] halfway between two images each."""
    drawn = np.random.default_rng(0).integers(0, len(vectors), (2, QUERIES))
    halfway = vectors[drawn[0]] + vectors[drawn[1]]
    return halfway / np.linalg.norm(halfway, axis=1, keepdims=True)


def measure_kind(folder: Path, add: int, params: IndexParams) -> dict[str, Any]:
    """One kind of index over a library: it is opened before the last images are added, follows, and answers."""
    library = Library.open(folder)
    late = library.entries(library.ids[-add:])
    library.remove([entry.id for entry in late])
    index = open_library_index(library, "clip", params)
    index.refresh()
    library.commit(late)
    following = timed(index.refresh)
    ids, vectors = library.ids, np.concatenate([vectors for _, _, vectors in library.vectors("clip")])
    queries = queries_of(vectors)
    scores = (queries.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    exact = [[ids[row] for row in rows] for rows in np.argsort(-scores, axis=1, kind="stable")[:, :TOP]]
    found: list[list[str]] = []
    searching = timed(lambda: found.extend(index.search(query[None], TOP)[0][0] for query in queries))
    library.close()
    agreed = [len(set(mine) & set(best)) / TOP for mine, best in zip(found, exact, strict=True)]
    return {
        "follows_an_addition_s": following["seconds"],
        "ms_a_search": round(searching["seconds"] / QUERIES * 1000, 2),
        f"recall@{TOP}": round(float(np.mean(agreed)), 4),
    }


def main(
    images: Annotated[int, typer.Option(help="How many the library holds.")] = 10_000,
    add: Annotated[int, typer.Option(help="How many are added.")] = 100,
    out: Annotated[Path, typer.Option(help="The result.")] = Path("reports/bench/library.json"),
) -> None:
    params, load = load_params(), [round(value, 1) for value in os.getloadavg()[:2]]
    set_up(params.runtime, params.seed)
    with tempfile.TemporaryDirectory() as place:
        pool, folder = Path(place) / "pool", Path(place) / "images"
        write_images(pool, images + 2 * add)
        folder.mkdir()
        waiting = sorted(pool.iterdir())
        arrived = [folder / path.name for path in waiting]
        move(waiting[:2], folder)
        index_folder(folder, params, Path(place) / "warm", ["slerp"])  # what a first embedding prepares
        move(waiting[2 : images - 1], folder)
        whole = timed(lambda: index_folder(folder, params, methods=["slerp"]))
        library = Library.open(folder)
        indexer = Indexer(library, Models(params), spaces_of(["slerp"], params).values())
        move(waiting[images - 1 : images + add], folder)
        indexer.add(arrived[images - 1 : images])  # its models are loaded
        named = timed(lambda: indexer.add(arrived[images : images + add]))
        move(waiting[images + add :], folder)
        looked_for = timed(indexer.update)
        nothing = timed(indexer.update)
        library.close()
        database = replace(params.index, uri=str(Path(place) / "milvus.db"))
        kinds = {name: measure_kind(folder, add, replace(database, **changes)) for name, changes in KINDS.items()}
    result = {
        "command": f"python -m bench.library --images {images} --add {add}",
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "faiss-cpu", "pymilvus", "milvus-lite"),
        "load_at_start": load,
        "images": images,
        "added": add,
        "whole_index": whole,
        "add_named_files": named | share(named, whole),
        "add_by_looking_through_the_folder": looked_for | share(looked_for, whole),
        "nothing_to_do": nothing | share(nothing, whole),
        "kinds": kinds,
    }
    write_json(out, result)
    for name in ("whole_index", "add_named_files", "add_by_looking_through_the_folder", "nothing_to_do"):
        typer.echo(f"{name}: {result[name]}")
    for name, measured in kinds.items():
        typer.echo(f"{name}: {measured}")


def move(paths: list[Path], folder: Path) -> None:
    for path in paths:
        path.rename(folder / path.name)


def share(part: dict[str, float], whole: dict[str, float]) -> dict[str, float]:
    return {"share_of_a_whole_index": round(part["cpu_s"] / whole["cpu_s"], 4)}


if __name__ == "__main__":
    typer.run(main)
