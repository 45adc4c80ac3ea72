"""The benchmarks as retrieval sees them: protocols, files for their servers, and the folders that `prepare` writes."""

from pipeline.retrieval.benchmarks.folders import QUERY_SETS, BenchmarkFolder, find_benchmarks
from pipeline.retrieval.benchmarks.interface import Benchmark, GroundTruth
from pipeline.retrieval.benchmarks.registry import BENCHMARKS, PUBLIC_BENCHMARKS

__all__ = [
    "BENCHMARKS",
    "PUBLIC_BENCHMARKS",
    "QUERY_SETS",
    "Benchmark",
    "BenchmarkFolder",
    "GroundTruth",
    "find_benchmarks",
]
