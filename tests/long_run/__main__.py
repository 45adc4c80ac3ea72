"""Memory and open files over a long training and a long embedding, with models that cost next to nothing.

    python -m tests.long_run --steps 10000 --rows 1000000

prints a JSON object; its status is 1 if memory or open files grow. A fifth of the way is warm-up.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import pyarrow as pa
import torch
import typer
from torch import nn

from pipeline.artifacts import ShardSet
from pipeline.config import OptimiserParams
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rows import EncoderRow
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.training import Run, train
from tests.sections import section

ALLOWED = 4 * 2**20
"""Bytes that a run may come to hold on the way, in logs and caches that are bounded."""


class Watch:
    """What this process holds, sampled after the warm-up: bytes that it allocated and has not freed, and open files.

    Allocations are counted where they are made: Python's and NumPy's by `tracemalloc`, Arrow's by its pool, torch's by
    the storages of the tensors alive. What the system reports as resident depends on the machine's other work, so it
    is printed and not judged.
    """

    def __init__(self, total: int):
        self.total, self.seen, self.samples = total, 0, []
        self._process = psutil.Process()

    def __enter__(self) -> Watch:
        gc.collect()
        gc.freeze()  # what is there already is not looked through at every sample
        tracemalloc.start(1)
        return self

    def __exit__(self, *_: object) -> None:
        tracemalloc.stop()
        gc.unfreeze()

    def tick(self, count: int = 1) -> None:
        """Note that so many steps or rows were done."""
        before = self.seen
        self.seen += count
        every = max(1, self.total // 50)
        if self.seen // every > before // every and self.seen > self.total // 5:
            self.samples.append((held_bytes(), self._process.num_fds()))

    def growth(self) -> dict[str, float]:
        """From the first samples to the last: the least of each few, for what is freed late does not grow."""
        memory, files = ([sample[number] for sample in self.samples] for number in (0, 1))
        few = max(1, len(memory) // 5)
        grown = min(memory[-few:]) - min(memory[:few])
        return {
            "megabytes": round(grown / 2**20, 1),
            "open files": min(files[-few:]) - min(files[:few]),
            "resident": self._process.memory_info().rss >> 20,
        }

    def leaks(self) -> bool:
        """Whether more is held at the end than bounded logs and caches explain."""
        grown = self.growth()
        return grown["megabytes"] * 2**20 > ALLOWED or grown["open files"] > 0


def held_bytes() -> int:
    """Bytes allocated by Python, NumPy, Arrow and torch, and not freed."""
    gc.collect()
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in gc.get_objects()
        if type(tensor) in (torch.Tensor, nn.Parameter)
    }
    return tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() + sum(storages.values())


class SmallTask:
    """Regression over a few numbers."""

    def __init__(self, watch: Watch):
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
        self._inputs, self._watch = torch.randn(256, 8), watch

    def __len__(self) -> int:
        return len(self._inputs)

    def loss(self, model, indices, generator, device):
        self._watch.tick()
        inputs = self._inputs[indices]
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        return loss, {"mse": loss.detach()}


class Texts:
    """Rows of distinct texts."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int) -> Iterator[EncoderRow]:
        return (EncoderRow(f"row {number}", f"text {number}") for number in range(start, self._count))


class CheapEncoder:
    dim = 16

    def __init__(self, watch: Watch):
        self._watch = watch

    def embed(self, inputs) -> np.ndarray:
        self._watch.tick(len(inputs))
        return np.full((len(inputs), self.dim), 0.25, np.float32)


def long_training(steps: int, folder: Path, task: Callable[[Watch], SmallTask] = SmallTask) -> Watch:
    often = {"checkpoint_every": max(1, steps // 40), "log_every": 50}
    params = section(OptimiserParams, steps=steps, batch_size=16, ema_decay=0.99, precision="fp32", **often)
    with Watch(steps) as watch:
        train(task(watch), params, Run(0, folder, {}, "cpu"))
    return watch


def long_embedding(rows: int, folder: Path) -> Watch:
    with Watch(rows) as watch:
        run_job(Texts(rows), embedding_job(CheapEncoder(watch)), folder, {}, JobOptions(256))
    assert sum(table.num_rows for table in ShardSet.open(folder).shards(["id"])) == rows
    return watch


def main(
    steps: Annotated[int, typer.Option(help="Training steps.")] = 10_000,
    rows: Annotated[int, typer.Option(help="Embedded rows.")] = 1_000_000,
) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="long-run-") as folder:
        watches = {
            "training": long_training(steps, Path(folder, "model")),
            "embedding": long_embedding(rows, Path(folder, "vectors")),
        }
    print(json.dumps({"steps": steps, "rows": rows, **{name: watch.growth() for name, watch in watches.items()}}))
    sys.exit(1 if any(watch.leaks() for watch in watches.values()) else 0)


if __name__ == "__main__":
    typer.run(main)
