"""The four public benchmarks in their official layouts: FashionIQ, CIRR, CIRCO and GeneCIS."""

from pipeline.sources.benchmarks.annotations import AnnotatedQuery, Annotations, BenchmarkError
from pipeline.sources.benchmarks.reader import BenchmarkReader, Selection
from pipeline.sources.benchmarks.registry import READERS, read_annotations

__all__ = [
    "READERS",
    "AnnotatedQuery",
    "Annotations",
    "BenchmarkError",
    "BenchmarkReader",
    "Selection",
    "read_annotations",
]
