"""Synthetic embeddings for timing indexes: many clusters of unequal size near a low-dimensional subspace.

Embeddings of images fill a small part of their space: an index lives on that, and on pure noise in
1536 dimensions no approximate index could work. Here a vector is

    x = normalise(W (c + SPREAD e) / |W (c + SPREAD e)| + NOISE n)

with a cluster's centre c and e normal in LATENT dimensions, W a random map to the space, and n noise of
unit length on average in all of its dimensions. There is one cluster for ROWS_A_CLUSTER vectors, the
k-th as likely as 1/sqrt(k).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.artifacts import read_json, write_json

LATENT, SPREAD, NOISE, ROWS_A_CLUSTER = 64, 0.7, 0.3, 250
CHUNK = 20_000


@dataclass(frozen=True)
class Data:
    """A set of vectors and queries that these numbers determine. No query is in the set."""

    rows: int
    dim: int
    queries: int
    seed: int = 0

    def describe(self) -> dict[str, Any]:
        """Everything that determines the set."""
        return asdict(self) | {"latent": LATENT, "spread": SPREAD, "noise": NOISE, "rows_a_cluster": ROWS_A_CLUSTER}

    def write(self, folder: Path) -> None:
        """Write a new folder: `vectors.f16` (float16 rows), `queries.npy` (float32 [queries, dim]) and `data.json`."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        draw = _Mixture(self)
        np.save(folder / "queries.npy", draw(self.queries, 0))
        with (
            open(folder / "vectors.f16", "wb") as file,
            tqdm(total=self.rows, desc="vectors", unit="vector", mininterval=5.0) as progress,
        ):
            for number, start in enumerate(range(0, self.rows, CHUNK), start=1):
                size = min(CHUNK, self.rows - start)
                draw(size, number).astype(np.float16).tofile(file)
                progress.update(size)
        write_json(folder / "data.json", self.describe())

    def is_written(self, folder: Path) -> bool:
        """Whether the folder holds these data, whole."""
        path = folder / "data.json"
        return path.is_file() and read_json(path) == self.describe()

    def read(self, folder: Path) -> Iterator[np.ndarray]:
        """Float32 vectors [at most CHUNK, dim], of unit length in float16. Not mapped: mapped pages count as memory."""
        for row in range(0, self.rows, CHUNK):
            count = min(CHUNK, self.rows - row) * self.dim
            flat = np.fromfile(folder / "vectors.f16", np.float16, count, offset=2 * row * self.dim)
            yield flat.astype(np.float32).reshape(-1, self.dim)


class _Mixture:
    """Draws the vectors."""

    def __init__(self, data: Data):
        rng = np.random.default_rng([data.seed, 0])
        clusters = max(1, data.rows // ROWS_A_CLUSTER)
        self.data = data
        self.centres = rng.standard_normal((clusters, LATENT), np.float32)
        self.map = rng.standard_normal((LATENT, data.dim), np.float32)
        likely = 1 / np.sqrt(np.arange(1, clusters + 1))
        self.likely = likely / likely.sum()

    def __call__(self, size: int, part: int) -> np.ndarray:
        """Vectors [size, dim] of one part of the set; each part has its own stream of random numbers."""
        rng = np.random.default_rng([self.data.seed, 1, part])
        latent = self.centres[rng.choice(len(self.centres), size, p=self.likely)]
        latent = latent + SPREAD * rng.standard_normal((size, LATENT), np.float32)
        noise = NOISE / np.sqrt(self.data.dim) * rng.standard_normal((size, self.data.dim), np.float32)
        return _unit(_unit(latent @ self.map) + noise)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """L2-normalise the rows."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
