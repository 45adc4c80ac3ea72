"""The embedding job against bare vLLM, and what training reads. Adds to reports/bench/embedding.json.

    python -m bench.embedding PART

embed, captions: the job and bare calls of vLLM on one engine and the same JPEGs, decoding included.
reader: how many rows of z_0 with stored text conditions training reads in a second, and its memory.
million: a million vectors written and read.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import typer

from bench.bare_vllm import SIZES, Comparison, Effort, Preparation, Workload, seconds
from bench.machine import AnonymousPeak, hardware, peak_memory_mib, versions
from pipeline.artifacts import ShardSet, ShardWriter, schemas, write_json
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.preparers import is_rejection
from pipeline.encoders.mllm.vllm_backend import EMBED, GENERATE
from pipeline.runtime import keep_freed_memory

OUT = Path("reports/bench/embedding.json")
app = typer.Typer(add_completion=False)


def against_bare(work: Workload, preparations: list[str], effort: Effort) -> None:
    """Measure one task both ways and report it."""
    keep_freed_memory()  # as every stage does
    parsed = [_preparation(one) for one in preparations]
    try:
        with tempfile.TemporaryDirectory() as place:
            figures = Comparison(work, parsed[0], Path(place)).measure(parsed, effort)
    except Exception as error:
        if not is_rejection(error):  # an input that is too long is one
            raise
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None
    name = f"{work.task}_{'gpu' if torch.cuda.is_available() else 'cpu'}"
    name += f"_{Path(work.model).name}" * (work.model in SIZES) + f"_{work.words}_words" * bool(work.words)
    report(name, figures)


def _preparation(text: str) -> Preparation:
    """THREADS or THREADS+PROCESSES."""
    threads, _, processes = text.partition("+")
    try:
        found = Preparation(int(threads), int(processes or 0))
    except ValueError:
        found = Preparation(0)
    if found.threads < 1 or found.processes < 0:
        raise typer.BadParameter(f"{text!r} is not THREADS or THREADS+PROCESSES", param_hint="--way")
    return found


def _arguments(text: str) -> dict[str, Any]:
    """JSON of `--vllm`."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{text!r} is no JSON: {error}", param_hint="--vllm") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{text!r} is no object of JSON", param_hint="--vllm")
    return found


def report(part: str, figures: dict[str, Any]) -> None:
    """Add the figures of a part to the report, with the command and the machine."""
    found = json.loads(OUT.read_text()) if OUT.is_file() else {}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    command = "python -m " + shlex.join(["bench.embedding", *sys.argv[1:]])
    write_json(
        OUT, found | {part: figures | {"command": command, "machine": hardware(), "peak_memory_mib": peak_memory_mib()}}
    )
    print(json.dumps({part: figures}, indent=2))


Model = Annotated[
    str, typer.Option(help=f"A folder, random-3b for Qwen2.5-VL-3B's sizes, or random weights for {', '.join(SIZES)}.")
]
Ways = Annotated[
    list[str],
    typer.Option("--way", help="THREADS, or THREADS+PROCESSES, that prepare; of several the best is measured."),
]
Vllm = Annotated[str, typer.Option(help="Further arguments of vllm.LLM for both, as `embedder.vllm`; JSON.")]
BareCount = Annotated[int, typer.Option(min=0, help="Images for bare vLLM; 0: all.")]
Count = Annotated[int, typer.Option(min=1, help="Images.")]
Side = Annotated[int, typer.Option(min=1, help="Of an image, in pixels.")]
Batch = Annotated[int, typer.Option(min=1, help="Inputs that are encoded at once.")]
TryCount = Annotated[int, typer.Option(min=1, help="Images with which each of several ways is tried.")]
Rounds = Annotated[int, typer.Option(min=1, help="The best of so many measurements.")]
Size = Annotated[int, typer.Option(min=1)]
TWO_THREADS = ("2",)


@app.command()
def embed(  # noqa: PLR0913 (one option an argument)
    model: Model = "models/backbones/mllm",
    count: Count = 2048,
    bare_count: BareCount = 0,
    side: Side = 64,
    batch: Batch = 256,
    ways: Ways = TWO_THREADS,
    try_count: TryCount = 512,
    rounds: Rounds = 3,
    words: Annotated[int, typer.Option(min=0, help="Of each text, as a caption has; 0: a short sentence.")] = 0,
    vllm: Vllm = "{}",
) -> None:
    """Fused embeddings of images with texts."""
    work = Workload(EMBED, model, count, side, batch, 0, _arguments(vllm), words)
    against_bare(work, ways, Effort(try_count, min(bare_count or count, count), rounds))


@app.command()
def captions(  # noqa: PLR0913 (one option an argument)
    model: Model = "models/backbones/mllm",
    count: Count = 512,
    bare_count: BareCount = 0,
    side: Side = 64,
    batch: Batch = 256,
    ways: Ways = TWO_THREADS,
    try_count: TryCount = 256,
    rounds: Rounds = 1,
    tokens: Annotated[int, typer.Option(min=1, help="Of a caption.")] = 120,
    vllm: Vllm = "{}",
) -> None:
    """Generated captions."""
    work = Workload(GENERATE, model, count, side, batch, tokens, _arguments(vllm))
    against_bare(work, ways, Effort(try_count, min(bare_count or count, count), rounds))


@app.command()
def reader(
    rows: Size = 20_000, dim: Size = 1536, tokens: Size = 24, width: Size = 384, batch: Size = 256, batches: Size = 400
) -> None:
    """Rows of z_0 and padded text conditions, in random batches, mapped, as Stage 1 reads a set of any size.

    first: opened for the first time, when the set is laid out. later: opened again. cold: one epoch of uncached rows.
    """
    from pipeline.artifacts.mapped import scratch

    with tempfile.TemporaryDirectory() as place:
        vectors, texts = Path(place) / "vectors", Path(place) / "texts"
        in_another_process(write_vectors, vectors, rows, dim)
        in_another_process(write_texts, texts, rows, tokens, width)
        order = torch.randint(0, rows, (batches, batch), generator=torch.Generator().manual_seed(0))
        shuffled = torch.randperm(rows, generator=torch.Generator().manual_seed(1)).split(batch)
        with AnonymousPeak() as peak:
            first, later = time_reading(vectors, texts, order), time_reading(vectors, texts, order)
            for path in (*scratch(vectors).glob("*.npy"), *scratch(texts).glob("*.npy")):
                forget(path)
            cold = time_reading(vectors, texts, shuffled)
    each = later.reading / batches / batch
    rates = {
        "": 1 / each,
        "_first_opening_included": rows / (first.opening + rows * first.reading / batches / batch),
        "_later_opening_included": rows / (later.opening + rows * each),
        "_cold": rows / cold.reading,
    }
    report(
        "reader",
        {
            "rows": rows,
            "dim": dim,
            "text_tokens": tokens,
            "text_width": width,
            "batch": batch,
            "data_mib": round(rows * (4 * dim + 2 * tokens * width) / 2**20, 1),
            **{f"rows_per_second{name}": round(rate) for name, rate in rates.items()},
            "opening_seconds": {
                "first": round(first.opening, 2),
                "first_of_cores": round(first.opening_of_cores, 2),
                "later": round(later.opening, 2),
            },
            "anonymous_memory_mib": {"before": peak.before_mib, "peak": peak.peak_mib},
            "versions": versions("torch", "pyarrow"),
        },
    )


class ReadingTime(NamedTuple):
    """Seconds."""

    opening: float
    reading: float
    opening_of_cores: float
    """Of all cores together."""


def time_reading(vectors: Path, texts: Path, batches: Iterable[torch.Tensor]) -> ReadingTime:
    """Open a set as training does, and read these batches of rows."""
    from pipeline.fusion_diff.tables import open_conditions, open_vectors

    start, busy = time.perf_counter(), time.process_time()
    names, z0, _ = open_vectors(vectors, in_memory=0)
    conditions, _ = open_conditions(texts, names, in_memory=0)
    middle, busy = time.perf_counter(), time.process_time() - busy
    for rows in batches:
        z0[rows], conditions.batch(rows)
    return ReadingTime(middle - start, time.perf_counter() - middle, busy)


def in_another_process(write: Callable[..., None], *arguments: Any) -> None:
    """Call a function where its memory does not count as the reader's."""
    writer = multiprocessing.get_context("spawn").Process(target=write, args=arguments)
    writer.start()
    writer.join()


def forget(path: Path) -> None:
    """Drop a file from the system's cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_texts(folder: Path, rows: int, tokens: int, width: int, rows_per_shard: int = 2_000) -> None:
    """Random token states of texts of one length, as the conditions' shards hold them."""
    generator = np.random.default_rng(0)
    writer = ShardWriter(folder, schemas.conditions(width), {}, rows_per_shard)
    for first in range(0, rows, rows_per_shard):
        count = min(rows_per_shard, rows - first)
        states = pa.array(generator.standard_normal(count * tokens * width, np.float32).astype(np.float16))
        offsets = pa.array(np.arange(count + 1, dtype=np.int64) * tokens * width)
        ids = pa.array([str(n) for n in range(first, first + count)])
        columns = [ids, pa.array(np.full(count, tokens, np.int32)), pa.LargeListArray.from_arrays(offsets, states)]
        writer.write(pa.Table.from_arrays(columns, schema=writer.schema))
    writer.close()


def write_vectors(folder: Path, rows: int, dim: int, rows_per_shard: int = 10_000) -> None:
    """Random vectors, as the embeddings' shards hold them."""
    generator = np.random.default_rng(1)
    writer = ShardWriter(folder, schemas.embeddings(dim), {}, rows_per_shard)
    for first in range(0, rows, rows_per_shard):
        count = min(rows_per_shard, rows - first)
        flat = pa.array(generator.standard_normal(count * dim, np.float32))
        ids = pa.array([str(n) for n in range(first, first + count)])
        writer.write(pa.Table.from_arrays([ids, pa.FixedSizeListArray.from_arrays(flat, dim)], schema=writer.schema))
    writer.close()


class RandomEmbedder:
    """Stands in for f_M: a vector drawn for every input."""

    def __init__(self, dim: int):
        self.dim, self._generator = dim, np.random.default_rng(2)

    def embed(self, inputs: list[MllmInput]) -> np.ndarray:
        return self._generator.standard_normal((len(inputs), self.dim), np.float32)


class Numbers:
    """A reader of as many texts as wanted."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int) -> Iterator[EncoderRow]:
        return (EncoderRow(str(n), f"text {n}") for n in range(start, self._count))


@app.command()
def million(
    rows: Size = 1_000_000,
    dim: Size = 1536,
    folder: Annotated[Path, typer.Option(help="Takes 6 GB.")] = Path("data/bench"),
) -> None:
    """Vectors written by the job and read back, with hashes checked; the process' peak memory."""
    try:
        wrote, _ = seconds(
            lambda: run_job(Numbers(rows), embedding_job(RandomEmbedder(dim)), folder, {}, JobOptions(2_000))
        )
        start = time.perf_counter()
        found = sum(table.num_rows for table in ShardSet.open(folder).shards())
        read = time.perf_counter() - start
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if found != rows:
        raise SystemExit(f"error: {found} of {rows} rows came back")
    report(
        "million",
        {"rows": rows, "dim": dim, "written_per_second": round(rows / wrote), "read_per_second": round(rows / read)},
    )


if __name__ == "__main__":
    app()
