"""From a rehearsal to the whole profile: hours, GPUs and terabytes, stage by stage."""

from __future__ import annotations

import re
from typing import Any

from bench.rehearsal.compose import GPUS, TRAININGS, Counts, batch_share
from pipeline.app.inventory.needs import mllm_sections
from pipeline.config import Params
from pipeline.text.captions import is_learned

PAIRS = {"cc3m": 3.3e6, "cc12m": 12.4e6, "sa1b": 11.1e6, "journeydb": 4.4e6}
"""Images of a source, as its owner counts them."""
UNCAPTIONED = ("sa1b",)
GALLERIES = {"fashioniq": 15_536, "cirr": 2_297 + 2_316, "circo": 123_403, "genecis": 20_000}
QUERIES = {"fashioniq": 2 * 6_016, "cirr": 4_181 + 4_148, "circo": 220 + 800, "genecis": 8_000}
"""Of the splits that the profiles read; of FashionIQ in both orders of its captions."""
BASIS = {
    "check_parameters": "",
    "prepare": "pairs",
    "extract_text": "captions",
    "embed_fused": "learned",
    "train_prior": "prior",
    "train_control_adapter": "control",
    "train_diffcomp": "diffcomp",
    "embed_gallery": "gallery",
    "build_index": "gallery",
    "retrieve": "queries",
    "report": "",
}
"""What a stage's work grows with."""
ON_CPU = ("check_parameters", "prepare", "build_index", "report")
"""Stages that more GPUs make no faster."""
RULES = ((r"triplets", "triplets"), (r"texts/generated", "captions"), (r"gallery/(?!circo)", "nothing"))
"""Bars that grow with something else than their stage. CIRCO's gallery stands for all: it alone has some batches."""


def whole_profile(params: Params, entry: dict[str, Any], counts: Counts, stages: list[str]) -> dict[str, Any]:
    """The estimate for the whole profile.

    Args:
        params: The profile.
        entry: What was measured.
        counts: How much was made for it.
        stages: In the graph's order.

    Returns:
        `whole`: by stage its units, hours, and terabytes; their sums; and the slowest stage.
    """
    units = _units(params, counts)
    ratios = {name: wanted / made for name, (wanted, made) in units.items()}
    gpus = GPUS.get(params.profile, 1)
    rows, slow = {}, _slower(params, entry)
    for name in stages:
        facts = entry["stages"].get(name)
        if not facts or "error" in facts:
            continue
        basis = BASIS.get(name, "")
        ratio = ratios.get(basis, 1.0)
        shared = 1 if name in ON_CPU else gpus
        bars = _spent(facts["bars"], units["queries"][1] if basis == "queries" else 0)
        seconds, start = _seconds(facts["seconds"], bars, basis, ratios), _start_up(facts["seconds"], bars)
        seconds = start + seconds * slow.get(name, 1.0) / shared
        rows[name] = {"hours": round(seconds / 3600, 2), "gpus": 0 if name in ON_CPU else gpus}
        grows = not name.startswith("train") and basis
        rows[name]["terabytes"] = round(facts["bytes"] * (ratio if grows else 1.0) / 1e12, 4)
    hours = {name: row["hours"] for name, row in rows.items()}
    total = {"hours": round(sum(hours.values()), 1), "terabytes": round(sum(r["terabytes"] for r in rows.values()), 3)}
    slowest = max(hours, key=lambda name: hours[name]) if hours else ""
    return {"whole": {"gpus": gpus, "stages": rows, **total, "slowest": slowest}}


def pair_count(params: Params) -> float:
    """Images of a profile's sources of pairs."""
    limit = params.data.max_images
    return sum(min(PAIRS.get(name, 0.0), limit or 1e18) for name in params.data.web.pairs)


def _units(params: Params, counts: Counts) -> dict[str, tuple[float, float]]:
    """Unit of work -> how many the profile takes, and how many the rehearsal took."""
    made, pairs = counts.amounts, pair_count(params)
    sources = params.data.web.pairs
    each, share = made.pairs / len(sources), params.captions.long_share
    data = params.prior.data

    def long(name: str, images: float) -> float:
        return images * (1.0 if name in UNCAPTIONED else share if is_learned(name, data) else 0.0)

    def learned(name: str, images: float) -> float:
        both = data.short_share if name in data.short_sources else 0.0
        return (images + both * long(name, images)) if is_learned(name, data) else 0.0

    limit = params.data.max_images or 1e18
    whole = {name: min(PAIRS.get(name, 0.0), limit) for name in sources}
    units = {
        "pairs": (pairs, made.pairs),
        "captions": (sum(map(long, whole, whole.values())), sum(long(name, each) for name in sources)),
        "learned": (sum(map(learned, whole, whole.values())), sum(learned(name, each) for name in sources)),
        "triplets": (params.data.triplets, 2 * made.edits),
        "gallery": (sum(GALLERIES.values()), made.gallery),
        "nothing": (0, 1),
        "queries": (sum(QUERIES.values()), made.queries * (3 * 2 + 2 + 1 + 4) + made.asked),
    }
    for name in TRAININGS:
        section = getattr(params, name)
        units[name] = (section.steps * section.batch_size, counts.steps[name] * batch_share(params, name))
    return units


def _spent(bars: dict[str, dict[str, Any]], least: float) -> dict[str, float]:
    """Seconds of every bar's work at its steady rate: of all its rows, also of those done when it was first seen.

    Args:
        bars: A stage's.
        least: Rows that every bar has at least. Each query goes through each of them, and short ones are not drawn.
    """
    rows = {name: max(bar["rows"], bar.get("of", 0), least) for name, bar in bars.items()}
    # A bar that was drawn once has no rate. Its work counts as start-up, since nothing is known of it.
    return {name: rows[name] / (bar["rows_per_second"] or float("inf")) for name, bar in bars.items()}


def _seconds(whole: float, bars: dict[str, float], basis: str, ratios: dict[str, float]) -> float:
    """Seconds of the profile's work on what the rehearsal ran on: every bar by what it grows with, else all of it."""
    if not bars:
        return whole * ratios.get(basis, 1.0)
    units = {name: next((unit for rule, unit in RULES if re.search(rule, name)), basis) for name in bars}
    return sum(seconds * ratios.get(units[name], 1.0) for name, seconds in bars.items())


def _start_up(whole: float, bars: dict[str, float]) -> float:
    """What is no bar's, of a stage's seconds."""
    return max(0.0, whole - sum(bars.values())) if bars else 0.0


def _slower(params: Params, entry: dict[str, Any]) -> dict[str, float]:
    """Stage -> how much slower a model of all its layers is, over as many GPUs as hold it."""
    shares = {
        name: entry["models"].get(section.path, {}).get("layers_share", 1.0)
        for name, section in mllm_sections(params).items()
    }

    def of(*names: str) -> float:
        return max([1.0 / shares[name] for name in names if name in shares] or [1.0])

    return {
        "extract_text": of("captioner"),
        "embed_fused": of("embedder"),
        "embed_gallery": of("embedder"),
        "retrieve": of("embedder", "describer"),
    }
