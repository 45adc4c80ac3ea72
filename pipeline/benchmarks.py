"""Where the benchmarks are and what belongs to each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import ArtifactError
from pipeline.artifacts.shards import MANIFEST

QUERY_SETS = {"queries": "rankings", "genecis": "genecis"}
"""Query set of a benchmark -> the folder of its ranked lists. GeneCIS-shaped queries bring small galleries of their own."""


@dataclass(frozen=True)
class BenchmarkFolder:
    """One benchmark as `prepare` writes it: `images`, `queries`, and `genecis` where it has such queries."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def query_sets(self) -> list[str]:
        return [name for name in QUERY_SETS if (self.path / name / MANIFEST).is_file()]


def find_benchmarks(folder: str | Path = "data/benchmarks") -> list[BenchmarkFolder]:
    """All benchmarks below `folder`, by name. Raises ArtifactError when there is none."""
    found = [BenchmarkFolder(path.parent.parent) for path in sorted(Path(folder).glob(f"*/queries/{MANIFEST}"))]
    if not found:
        raise ArtifactError(f"{folder}: no benchmark is there")
    return found
