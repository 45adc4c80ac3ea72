"""The four public benchmarks in their official layouts: FashionIQ, CIRR, CIRCO and GeneCIS."""

from pathlib import Path

from pipeline.sources.benchmarks import circo, cirr, fashioniq, genecis
from pipeline.sources.benchmarks.annotations import AnnotatedQuery, Annotations, BenchmarkError

READERS = {reader.NAME: reader for reader in (fashioniq, cirr, circo, genecis)}


def read_annotations(benchmark: str, folder: str | Path, split: str) -> list[Annotations]:
    """A split's queries, one entry a gallery. Raises BenchmarkError naming what is unknown, missing or wrong."""
    if benchmark not in READERS:
        raise BenchmarkError(f"{benchmark!r} is not one of the benchmarks ({', '.join(READERS)})")
    if not Path(folder).is_dir():
        raise BenchmarkError(f"{folder}: no such folder; {READERS[benchmark].ANNOTATIONS_FROM}")
    return READERS[benchmark].read(Path(folder), split)


__all__ = ["READERS", "AnnotatedQuery", "Annotations", "BenchmarkError", "read_annotations"]
