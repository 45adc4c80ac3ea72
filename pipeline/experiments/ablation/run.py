"""Training and scoring of cells: in several processes, resumable, one JSON file a table."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pipeline.artifacts import ArtifactError, read_json, write_json
from pipeline.artifacts.atomic import as_stored
from pipeline.config import Params, as_dict
from pipeline.diffcomp.tuning import fine_tune, new_task
from pipeline.encoders.identity import backbone_identity
from pipeline.experiments.ablation.data import BenchmarkScorer, data_hashes, masking_nouns, short_rows, training_pixels
from pipeline.experiments.ablation.tables import Cell, Table, cells_of, recipe
from pipeline.runtime import device, set_up
from pipeline.training import Run

FOLDER, SCRATCH = Path("reports/ablations"), Path("data/ablations/cells")
WITHOUT_EFFECT = ("log_every", "checkpoint_every", "gradient_checkpointing")
"""Of a configuration: what changes no result."""
MEASURED = ("scores", "training", "device")
SHOWN = ("loss", "align", "diff", "ratio", "masked_share", "cos_aligned", "cos_masked", "gamma", "b")
"""What of a training log's last line is kept."""


def run_tables(
    names: Sequence[str], tables: dict[str, Table], params: Params, out: Path = FOLDER, jobs: int = 1
) -> None:
    """Train and score every cell of some tables that is not there yet, and write `<table>.json` each.

    A table's file is written again with every cell that is finished: a run that was cut off goes on. A configuration
    that occurs in several tables is trained once. Cells of other configurations or data are dropped from the file.

    Args:
        names: The tables to run.
        tables: The definitions of all tables, by name.
        params: The recipe, the seeds and the benchmarks.
        out: The folder of the files.
        jobs: Cells trained at a time.

    Raises:
        ArtifactError: Cells failed; says how many and the first, once all others are finished.
        ParameterError: A table's definition is wrong.
    """
    made_of = data_hashes(params)
    keyed = {name: [(cell_identity(cell, made_of), cell) for cell in cells_of(name, tables, params)] for name in names}
    done = _known(out)
    waiting = {key: cell for cells in keyed.values() for key, cell in cells if key not in done}
    if any(cell.variant.granularity == "noun" for cell in waiting.values()):
        masking_nouns(
            [row["caption"] for row in short_rows()], params.captions
        )  # before several processes ask for them

    def write(only: str = "") -> None:
        for name, cells in keyed.items():
            if not only or only in dict(cells):
                rows = [_entry(key, cell, done[key]) for key, cell in cells if key in done]
                write_json(
                    out / f"{name}.json",
                    {
                        "table": name,
                        "profile": params.profile,
                        "diffcomp": as_dict(recipe(params)),
                        "made_of": made_of,
                        "cells": rows,
                    },
                )

    write()
    failed = []
    for key, result in tqdm(_results(waiting, params, jobs), total=len(waiting), desc="cells", mininterval=5.0):
        if isinstance(result, Exception):
            cell = waiting[key]
            failed.append(f"{cell.table} {cell.row} {cell.setting} with seed {cell.seed}: {result}")
            continue
        done[key] = result
        write(key)
    if failed:
        raise ArtifactError(f"{len(failed)} of {len(waiting)} cells failed, the first is {failed[0]}")


def cell_identity(cell: Cell, made_of: dict[str, Any]) -> str:
    """The hash of everything that decides a cell's result: its configuration, seed, data and backbone."""
    variant = {name: value for name, value in as_dict(cell.variant).items() if name not in WITHOUT_EFFECT}
    known = {
        "diffcomp": variant,
        "seed": cell.seed,
        **made_of,
        **backbone_identity(cell.variant.backbone, cell.variant.pretrained),
    }
    return hashlib.sha256(json.dumps(as_stored(known), sort_keys=True).encode()).hexdigest()


def run_cell(cell: Cell, params: Params, key: str) -> dict[str, Any]:
    """Train one configuration and score it.

    Args:
        cell: The configuration and its seed.
        params: Everything else.
        key: The cell's identity.

    Returns:
        `scores`: benchmark -> kind of query -> metric -> percent; `training`: the last line of the log; `device`.
    """
    set_up(params.runtime, cell.seed)
    scratch = SCRATCH / key[:16]
    captions, phrases = ([row[name] for row in _rows()] for name in ("caption", "phrases"))
    task = new_task(cell.variant, params, _pixels, captions, phrases, lambda: masking_nouns(captions, params.captions))
    title = f"{cell.table} {cell.row} {cell.setting}".strip()
    log = fine_tune(task, Run(cell.seed, scratch, {"cell": key}, params.runtime.device, title))
    shutil.rmtree(scratch, ignore_errors=True)
    size, batch_size = task.model.encoder.image_size, params.retrieve.batch_size
    return {
        "scores": {
            name: _scorer(name, size).scores(task.model.eval(), batch_size) for name in params.ablations.benchmarks
        },
        "training": {name: round(log[-1][name], 5) for name in SHOWN if name in log[-1]},
        "device": torch.cuda.get_device_name() if device(params.runtime) == "cuda" else "cpu",
    }


_rows = lru_cache(maxsize=1)(short_rows)
_pixels = lru_cache(maxsize=1)(training_pixels)
_scorer = lru_cache(maxsize=4)(BenchmarkScorer)
"""Read once a process."""


def _results(cells: dict[str, Cell], params: Params, jobs: int) -> Iterator[tuple[str, dict[str, Any] | Exception]]:
    """Identity and what was measured, or what went wrong, as the cells are finished."""
    if jobs == 1:
        for key, cell in cells.items():
            try:
                yield key, run_cell(cell, params, key)
            except Exception as error:
                yield key, error
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:  # CUDA survives no fork
        futures = {pool.submit(run_cell, cell, params, key): key for key, cell in cells.items()}
        for future in as_completed(futures):
            failure = future.exception()
            if isinstance(failure, Exception):
                yield futures[future], failure
            else:
                yield futures[future], future.result()


def _known(out: Path) -> dict[str, dict[str, Any]]:
    """Identity -> what was measured, of every table in `out`."""
    entries = [entry for path in sorted(out.glob("*.json")) for entry in read_json(path)["cells"]]
    whole = (entry for entry in entries if all(name in entry for name in MEASURED))  # not of another version
    return {entry["identity"]: {name: entry[name] for name in MEASURED} for entry in whole}


def _entry(key: str, cell: Cell, measured: dict[str, Any]) -> dict[str, Any]:
    return {"row": cell.row, "setting": cell.setting, "seed": cell.seed, "identity": key, **measured}
