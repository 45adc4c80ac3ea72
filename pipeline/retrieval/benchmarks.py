"""Where the benchmarks are and what belongs to each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, read_json, sha256_file
from pipeline.artifacts.shards import MANIFEST

QUERY_SETS = {"queries": "rankings", "genecis": "genecis"}
"""Query set of a benchmark -> the folder of its ranked lists. GeneCIS-shaped queries bring small galleries of their own."""

KEEP_REFERENCE = ("fashioniq", "circo")
"""Public benchmarks whose official protocol leaves the reference in the gallery; elsewhere no list holds it."""


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
    def public(self) -> str:
        """The public benchmark whose protocol holds here; "" for Emoji-CIR."""
        return self.identity.get("benchmark", "")

    @property
    def private(self) -> bool:
        """Whether only a server knows the targets."""
        return self.identity.get("private_targets", False)

    @property
    def excludes_reference(self) -> bool:
        return self.public not in KEEP_REFERENCE


def find_benchmarks(folder: str | Path = "data/benchmarks") -> list[BenchmarkFolder]:
    """All benchmarks below `folder`, by name. Raises ArtifactError when there is none."""
    paths = [path.parent.parent for path in sorted(Path(folder).glob(f"*/queries/{MANIFEST}"))]
    if not paths:
        raise ArtifactError(f"{folder}: no benchmark is there")
    galleries: dict[str, str] = {}
    return [
        BenchmarkFolder(path, galleries.setdefault(sha256_file(path / "images" / MANIFEST), path.name))
        for path in paths
    ]
