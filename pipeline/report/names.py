"""How methods and image sets are called, and in what order they appear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.query.interface import Method
from pipeline.query.registry import labelled_methods
from pipeline.retrieval.benchmarks import BENCHMARKS

CLAIMED_ORDERS = (
    ("fusion_diff", "fused_only"),
    ("fusion_diff", "stage1_only"),
    ("fusion_diff", "cirevl"),
    ("fusion_diff", "fused_description"),
    ("fusion_diff", "slerp"),
    ("fusion_diff", "diffcomp"),
    ("diffcomp", "diffcomp_row1"),
    ("diffcomp", "image_only"),
    ("diffcomp", "text_only"),
    ("diffcomp", "image_text"),
    ("diffcomp", "slerp"),
    ("diffcomp_relative", "diffcomp"),
    ("diffcomp_relative", "diffcomp_row1"),
    ("diffcomp_relative", "image_text"),
    ("diffcomp_relative", "slerp"),
)
"""The first method above the second: what the papers claim, and what this project does of its own recipe."""


@dataclass(frozen=True)
class Attribution:
    name: str
    authors: str
    licence: str
    url: str


ATTRIBUTIONS = (
    Attribution("Noto Emoji", "Google", "Apache-2.0", "https://github.com/googlefonts/noto-emoji"),
    Attribution("Twemoji", "Twitter and contributors", "CC BY 4.0", "https://github.com/twitter/twemoji"),
    Attribution("OpenMoji", "the OpenMoji project", "CC BY-SA 4.0", "https://openmoji.org"),
    Attribution(
        "CLDR names and keywords through emojibase", "Unicode and Miles Johnson", "MIT", "https://emojibase.dev"
    ),
)


def ordered(methods: Iterable[str]) -> list[str]:
    """Method names in the tables' order: those with a label, then the others by name."""
    return sorted(methods, key=lambda name: (describe(name).order, name))


def describe(name: str) -> Method:
    """A method's label, group, note and colour. One without a label is shown under its name."""
    return labelled_methods().get(name) or Method(name, name, space="", family="")


def is_featured(name: str) -> bool:
    """Whether the figures show a method."""
    return describe(name).featured


def benchmark_label(benchmark: str) -> str:
    """How a report calls a folder below data/benchmarks."""
    labels = {folder: label for known in BENCHMARKS.values() for folder, label in known.labels.items()}
    return labels.get(benchmark, benchmark.replace("_", " "))


def kind_label(kind: str) -> str:
    return kind.replace("_", " ").strip().capitalize()
