"""The benchmarks' folders below data/benchmarks, and what belongs to each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, read_json, sha256_file
from pipeline.artifacts.shards import MANIFEST
from pipeline.retrieval.benchmarks.emoji_cir import EmojiCir
from pipeline.retrieval.benchmarks.interface import Benchmark
from pipeline.retrieval.benchmarks.registry import BENCHMARKS

QUERY_SETS = {"queries": "rankings", "genecis": "genecis"}
"""Query set of a benchmark -> the folder of its ranked lists. Those of `genecis` bring small galleries of their own."""


@dataclass(frozen=True)
class BenchmarkFolder:
    """One benchmark as `prepare` writes it: `images`, `queries`, and `genecis` where it has such queries."""

    path: Path
    gallery: str
    """The first benchmark with exactly these images: its vectors and index serve this one as well."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def query_sets(self) -> list[str]:
        return [name for name in QUERY_SETS if (self.path / name / MANIFEST).is_file()]

    @property
    def identity(self) -> dict[str, Any]:
        """What made the queries."""
        return read_json(self.path / "queries" / MANIFEST)["identity"]

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark that this is a split, or a part of a split, of.

        Raises:
            ArtifactError: Nothing here knows the benchmark.
        """
        name = self.identity.get("benchmark", EmojiCir.name)
        if name not in BENCHMARKS:
            raise ArtifactError(f"{self.path}: {name!r} is not one of the benchmarks ({', '.join(BENCHMARKS)})")
        return BENCHMARKS[name]

    @property
    def private(self) -> bool:
        """Whether only a server knows the targets."""
        return self.identity.get("private_targets", False)


def find_benchmarks(folder: str | Path = "data/benchmarks") -> list[BenchmarkFolder]:
    """All benchmarks below `folder`, by name.

    Raises:
        ArtifactError: There is none.
    """
    paths = [path.parent.parent for path in sorted(Path(folder).glob(f"*/queries/{MANIFEST}"))]
    if not paths:
        raise ArtifactError(f"{folder}: no benchmark is there")
    galleries: dict[str, str] = {}
    return [
        BenchmarkFolder(path, galleries.setdefault(sha256_file(path / "images" / MANIFEST), path.name))
        for path in paths
    ]
