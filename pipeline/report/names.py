"""How methods and image sets are called, and in what order they appear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class MethodName:
    key: str
    label: str
    group: str
    note: str
    colour: str


METHODS = (
    MethodName("image_only", "Image only", "Training-free", "the reference's CLIP vector", "#9aa0a6"),
    MethodName("text_only", "Text only", "Training-free", "the modification's CLIP vector", "#c3a97b"),
    MethodName("image_text", "Image + text", "Training-free", "their normalised weighted sum", "#7fa58a"),
    MethodName("slerp", "Slerp", "Training-free", "a point on the arc between them", "#6b8fb5"),
    MethodName("cirevl", "CIReVL", "Training-free", "text search with the described target", "#8f86a8"),
    MethodName("fused_only", "Fused only (A)", "Fusion-Diff", "the fused query embedding, no diffusion", "#f2b8a0"),
    MethodName(
        "stage1_only", "Stage 1 only (B)", "Fusion-Diff", "the prior alone, from the described target", "#e8875f"
    ),
    MethodName("fusion_diff", "Fusion-Diff (C)", "Fusion-Diff", "the prior with the Control-Adapter", "#d9481f"),
    MethodName(
        "diffcomp_row1", "DiffComp, row 1", "DiffComp", "plain patches, random masking, linear composition", "#c4bbea"
    ),
    MethodName(
        "diffcomp_caption", "DiffComp, captions", "DiffComp", "trained on whole captions, as in the paper", "#9d8be0"
    ),
    MethodName("diffcomp", "DiffComp", "DiffComp", "trained on what tells a picture from its relatives", "#6a4be0"),
)
"""The known methods, in the order of every table."""

CLAIMED_ORDERS = (
    ("fusion_diff", "fused_only"),
    ("fusion_diff", "stage1_only"),
    ("diffcomp", "diffcomp_row1"),
    ("diffcomp", "image_only"),
    ("diffcomp", "text_only"),
    ("diffcomp", "image_text"),
    ("diffcomp", "slerp"),
)
"""What the papers claim: the first method above the second."""

FEATURED = ("fusion_diff", "diffcomp")
"""The methods that the figures show."""

BENCHMARKS = {"emoji_cir": "Emoji-CIR", "emoji_cir_val": "Emoji-CIR, validation split"}


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

_ORDER = {name.key: number for number, name in enumerate(METHODS)}


def ordered(methods: Iterable[str]) -> list[str]:
    """Known methods in the tables' order, then the others by name."""
    return sorted(methods, key=lambda method: (_ORDER.get(method, len(_ORDER)), method))


def describe(method: str) -> MethodName:
    """A method's display name; one that the table does not know is shown by its key."""
    if method in _ORDER:
        return METHODS[_ORDER[method]]
    return MethodName(method, method, "Other", "", "#777777")


def benchmark_label(benchmark: str) -> str:
    return BENCHMARKS.get(benchmark, benchmark.replace("_", " "))


def kind_label(kind: str) -> str:
    return kind.replace("_", " ").strip().capitalize()
