"""All benchmarks by name. Another benchmark is one module and one entry here."""

from __future__ import annotations

from pipeline.retrieval.benchmarks.circo import Circo
from pipeline.retrieval.benchmarks.cirr import Cirr
from pipeline.retrieval.benchmarks.emoji_cir import EmojiCir
from pipeline.retrieval.benchmarks.fashioniq import FashionIQ
from pipeline.retrieval.benchmarks.genecis import GeneCIS
from pipeline.retrieval.benchmarks.interface import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (EmojiCir(), FashionIQ(), Cirr(), Circo(), GeneCIS())
}
"""Name -> benchmark, in the order of a report."""

PUBLIC_BENCHMARKS = {name: benchmark for name, benchmark in BENCHMARKS.items() if benchmark.public}
