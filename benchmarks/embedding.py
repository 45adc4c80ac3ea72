"""The embedding job against bare vLLM, and what training reads: python -m benchmarks.embedding PART. Adds to reports/bench/embedding.json.

embed, captions: the job and bare calls of vLLM on one engine and the same JPEGs, decoding included, the best of `rounds`.
reader: rows of z_0 with stored text conditions that training takes a second. million: a million vectors written and read.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
import typer

from benchmarks.bare_vllm import Comparison, Way, seconds
from benchmarks.machine import hardware, peak_memory_mib, versions
from pipeline.artifacts import ShardSet, ShardWriter, schemas, write_json
from pipeline.encoders.job import EncoderRow, embedding_job, run_job
from pipeline.encoders.mllm import MllmInput
from pipeline.encoders.vllm_mllm import EMBED, GENERATE

OUT = Path("reports/bench/embedding.json")
app = typer.Typer(add_completion=False)


def against_bare(
    task: str, model: str, count: int, bare_count: int, side: int, batch: int, ways: list[str], try_count: int, rounds: int, tokens: int,
) -> None:
    parsed = [_way(one) for one in ways]
    with tempfile.TemporaryDirectory() as place:
        comparison = Comparison(task, model, count, side, batch, parsed, tokens, Path(place))
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
    write_json(OUT, found | {part: figures | {"machine": hardware(), "peak_memory_mib": peak_memory_mib()}})
    print(json.dumps({part: figures}, indent=2))


Model = Annotated[str, typer.Option(help="A folder, or random-3b for Qwen2.5-VL-3B's sizes.")]
Ways = Annotated[list[str], typer.Option("--way", help="THREADS, or THREADS+PROCESSES, that prepare; of several the best is measured.")]


@app.command()
def embed(
    model: Model = "models/backbones/mllm", count: int = 2048, bare_count: int = 0, side: int = 64, batch: int = 256,
    ways: Ways = ["2"], try_count: int = 512, rounds: int = 3,  # noqa: B006
) -> None:
    """Fused embeddings of pictures with texts."""
    against_bare(EMBED, model, count, bare_count, side, batch, ways, try_count, rounds, 0)


@app.command()
def captions(
    model: Model = "models/backbones/mllm", count: int = 512, bare_count: int = 0, side: int = 64, batch: int = 256,
    ways: Ways = ["2"], try_count: int = 256, rounds: int = 1, tokens: int = 120,  # noqa: B006
) -> None:
    """Generated captions."""
    against_bare(GENERATE, model, count, bare_count, side, batch, ways, try_count, rounds, tokens)


@app.command()
def reader(rows: int = 20_000, dim: int = 1536, tokens: int = 24, width: int = 384, batch: int = 256, batches: int = 400) -> None:
    """Rows of z_0 and padded text conditions, in random batches, as Stage 1 takes them."""
    from pipeline.fusion_diff.files import read_conditions, read_vectors

    with tempfile.TemporaryDirectory() as place:
        vectors, texts = Path(place) / "vectors", Path(place) / "texts"
        generator = np.random.default_rng(0)
        write_vectors(vectors, rows, dim)
        writer = ShardWriter(texts, schemas.conditions(width), {}, 2_000)
        for first in range(0, rows, 2_000):
            count = min(2_000, rows - first)
            states = pa.array(generator.standard_normal(count * tokens * width, np.float32).astype(np.float16))
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * tokens * width)
            ids = pa.array([str(n) for n in range(first, first + count)])
            columns = [ids, pa.array(np.full(count, tokens, np.int32)), pa.ListArray.from_arrays(offsets, states)]
            writer.write(pa.Table.from_arrays(columns, schema=writer.schema))
        writer.close()
        start = time.perf_counter()
        names, z0, _ = read_vectors(vectors)
        text, _ = read_conditions(texts, names)
        opened = time.perf_counter() - start
        order = torch.randint(0, rows, (batches, batch), generator=torch.Generator().manual_seed(0))
        taken, _ = seconds(lambda: [(z0[one], *text.batch(one)) for one in order])
    whole = opened + rows * taken / batches / batch
    report("reader", {
        "rows": rows, "dim": dim, "text_tokens": tokens, "text_width": width, "batch": batch,
        "rows_per_second": round(batches * batch / taken), "rows_per_second_opening_included": round(rows / whole),
        "versions": versions("torch", "pyarrow"),
    })


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
def million(rows: int = 1_000_000, dim: int = 1536, folder: Annotated[Path, typer.Option(help="Takes 6 GB.")] = Path("data/bench")) -> None:
    """As many vectors written by the job and read back, hashes checked; the process' peak memory."""
    try:
        wrote, _ = seconds(lambda: run_job(Numbers(rows), embedding_job(Drawn(dim)), folder, {}, 2_000))
        start = time.perf_counter()
        found = sum(table.num_rows for table in ShardSet.open(folder).shards())
        read = time.perf_counter() - start
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if found != rows:
        raise SystemExit(f"error: {found} of {rows} rows came back")
    report("million", {"rows": rows, "dim": dim, "written_per_second": round(rows / wrote), "read_per_second": round(rows / read)})


if __name__ == "__main__":
    app()
