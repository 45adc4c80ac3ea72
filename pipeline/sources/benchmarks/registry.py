"""The readers of the public benchmarks by name. Another benchmark is one module and one entry here."""

from __future__ import annotations

from pathlib import Path

from pipeline.sources.benchmarks.annotations import Annotations, BenchmarkError
from pipeline.sources.benchmarks.circo import CircoReader
from pipeline.sources.benchmarks.cirr import CirrReader
from pipeline.sources.benchmarks.fashioniq import FashionIQReader
from pipeline.sources.benchmarks.genecis import GeneCISReader
from pipeline.sources.benchmarks.reader import BenchmarkReader

READERS: dict[str, BenchmarkReader] = {
    reader.name: reader for reader in (FashionIQReader(), CirrReader(), CircoReader(), GeneCISReader())
}
"""Name -> reader, in the order in which `prepare` writes them."""


def read_annotations(benchmark: str, folder: str | Path, split: str) -> list[Annotations]:
    """The queries of a split, one entry a gallery.

    Args:
        benchmark: A name of `READERS`.
        folder: The folder with the annotation files in their official layout.
        split: One of the benchmark's splits.

    Raises:
        BenchmarkError: The benchmark, the folder or the split is unknown, or an annotation is missing or wrong.
    """
    if benchmark not in READERS:
        raise BenchmarkError(f"{benchmark!r} is not one of the benchmarks ({', '.join(READERS)})")
    if not Path(folder).is_dir():
        raise BenchmarkError(f"{folder}: no such folder; {READERS[benchmark].annotations_source}")
    return READERS[benchmark].read(Path(folder), split)
