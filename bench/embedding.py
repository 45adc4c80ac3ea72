"""The embedding job against bare vLLM, and what training reads: python -m bench.embedding PART. Adds to reports/bench/embedding.json.

embed, captions: the job and bare calls of vLLM on one engine and the same JPEGs, decoding included, the best of `rounds`.
reader: rows of z_0 with stored text conditions that training takes a second, and its memory. million: a million vectors written and read.
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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
import typer

from bench.bare_vllm import Comparison, Way, seconds
from bench.machine import AnonymousPeak, hardware, peak_memory_mib, versions
from pipeline.artifacts import ShardSet, ShardWriter, schemas, write_json
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.vllm_backend import EMBED, GENERATE

OUT = Path("reports/bench/embedding.json")
app = typer.Typer(add_completion=False)


def against_bare(
    task: str,
    model: str,
    count: int,
    bare_count: int,
    side: int,
    batch: int,
    ways: list[str],
    try_count: int,
    rounds: int,
    tokens: int,
    vllm: str,
) -> None:
    parsed = [_way(one) for one in ways]
    with tempfile.TemporaryDirectory() as place:
        comparison = Comparison(task, model, count, side, batch, parsed[0], tokens, json.loads(vllm), Path(place))
        figures = comparison.measure(parsed, try_count, bare_count or count, rounds)
    report(f"{task}_{'gpu' if torch.cuda.is_available() else 'cpu'}", figures)


def _way(text: str) -> Way:
    threads, _, processes = text.partition("+")
    try:
        return int(threads), int(processes or 0)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not THREADS or THREADS+PROCESSES") from None


def report(part: str, figures: dict[str, Any]) -> None:
    found = json.loads(OUT.read_text()) if OUT.is_file() else {}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    command = "python -m " + shlex.join(["bench.embedding", *sys.argv[1:]])
    write_json(
        OUT, found | {part: figures | {"command": command, "machine": hardware(), "peak_memory_mib": peak_memory_mib()}}
    )
    print(json.dumps({part: figures}, indent=2))


Model = Annotated[str, typer.Option(help="A folder, or random-3b for Qwen2.5-VL-3B's sizes.")]
Ways = Annotated[
    list[str],
    typer.Option("--way", help="THREADS, or THREADS+PROCESSES, that prepare; of several the best is measured."),
]
Vllm = Annotated[str, typer.Option(help="More arguments of vllm.LLM, for both, as `encoder.vllm`; JSON.")]


@app.command()
def embed(
    model: Model = "models/backbones/mllm",
    count: int = 2048,
    bare_count: int = 0,
    side: int = 64,
    batch: int = 256,
    ways: Ways = ["2"],
    try_count: int = 512,
    rounds: int = 3,
    vllm: Vllm = "{}",
) -> None:
    """Fused embeddings of images with texts."""
    against_bare(EMBED, model, count, bare_count, side, batch, ways, try_count, rounds, 0, vllm)


@app.command()
def captions(
    model: Model = "models/backbones/mllm",
    count: int = 512,
    bare_count: int = 0,
    side: int = 64,
    batch: int = 256,
    ways: Ways = ["2"],
    try_count: int = 256,
    rounds: int = 1,
    tokens: int = 120,
    vllm: Vllm = "{}",
) -> None:
    """Generated captions."""
    against_bare(GENERATE, model, count, bare_count, side, batch, ways, try_count, rounds, tokens, vllm)


@app.command()
def reader(
    rows: int = 20_000, dim: int = 1536, tokens: int = 24, width: int = 384, batch: int = 256, batches: int = 400
) -> None:
    """Rows of z_0 and padded text conditions, in random batches, as Stage 1 takes them: mapped, as of a set of any size.

    first: opened for the first time, when the set is laid out. later: opened again. cold: one epoch of rows that no cache holds.
    """
    from pipeline.artifacts.mapped import scratch
    from pipeline.fusion_diff.checkpoints import open_conditions, open_vectors

    with tempfile.TemporaryDirectory() as place:
        vectors, texts = Path(place) / "vectors", Path(place) / "texts"
        for target, arguments in ((write_vectors, (vectors, rows, dim)), (write_texts, (texts, rows, tokens, width))):
            writer = multiprocessing.get_context("spawn").Process(
                target=target, args=arguments
            )  # its memory is not the reader's
            writer.start()
            writer.join()
        order = torch.randint(0, rows, (batches, batch), generator=torch.Generator().manual_seed(0))
        shuffled = torch.randperm(rows, generator=torch.Generator().manual_seed(1)).split(batch)

        def opened(taken: Iterable[torch.Tensor]) -> tuple[float, float, float]:
            """Seconds of opening the set and of taking these rows, and those of all cores together that opening took."""
            start, busy = time.perf_counter(), time.process_time()
            names, z0, _ = open_vectors(vectors, in_memory=0)
            text, _ = open_conditions(texts, names, in_memory=0)
            middle, busy = time.perf_counter(), time.process_time() - busy
            for one in taken:
                z0[one], text.batch(one)
            return middle - start, time.perf_counter() - middle, busy

        with AnonymousPeak() as peak:
            first, later = opened(order), opened(order)
            for path in (*scratch(vectors).glob("*.npy"), *scratch(texts).glob("*.npy")):
                forget(path)
            cold = opened(shuffled)
    each = later[1] / batches / batch
    rates = {
        "": 1 / each,
        "_first_opening_included": rows / (first[0] + rows * first[1] / batches / batch),
        "_later_opening_included": rows / (later[0] + rows * each),
        "_cold": rows / cold[1],
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
                "first": round(first[0], 2),
                "first_of_cores": round(first[2], 2),
                "later": round(later[0], 2),
            },
            "anonymous_memory_mib": {"before": peak.before_mib, "peak": peak.peak_mib},
            "versions": versions("torch", "pyarrow"),
        },
    )


def forget(path: Path) -> None:
    """Have the system drop what it keeps of a file in memory."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_texts(folder: Path, rows: int, tokens: int, width: int, rows_per_shard: int = 2_000) -> None:
    generator = np.random.default_rng(0)
    writer = ShardWriter(folder, schemas.conditions(width), {}, rows_per_shard)
    for first in range(0, rows, rows_per_shard):
        count = min(rows_per_shard, rows - first)
        states = pa.array(generator.standard_normal(count * tokens * width, np.float32).astype(np.float16))
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * tokens * width)
        ids = pa.array([str(n) for n in range(first, first + count)])
        columns = [ids, pa.array(np.full(count, tokens, np.int32)), pa.ListArray.from_arrays(offsets, states)]
        writer.write(pa.Table.from_arrays(columns, schema=writer.schema))
    writer.close()


def write_vectors(folder: Path, rows: int, dim: int, rows_per_shard: int = 10_000) -> None:
    generator = np.random.default_rng(1)
    writer = ShardWriter(folder, schemas.embeddings(dim), {}, rows_per_shard)
    for first in range(0, rows, rows_per_shard):
        count = min(rows_per_shard, rows - first)
        flat = pa.array(generator.standard_normal(count * dim, np.float32))
        ids = pa.array([str(n) for n in range(first, first + count)])
        writer.write(pa.Table.from_arrays([ids, pa.FixedSizeListArray.from_arrays(flat, dim)], schema=writer.schema))
    writer.close()


class Drawn:
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
    rows: int = 1_000_000,
    dim: int = 1536,
    folder: Annotated[Path, typer.Option(help="Takes 6 GB.")] = Path("data/bench"),
) -> None:
    """As many vectors written by the job and read back, hashes checked; the process' peak memory."""
    try:
        wrote, _ = seconds(lambda: run_job(Numbers(rows), embedding_job(Drawn(dim)), folder, {}, JobOptions(2_000)))
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
