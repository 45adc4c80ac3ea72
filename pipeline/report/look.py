"""What the trained DiffComp sees: where it masks training images, where it keeps references, and how alike its pairs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.config import Params
from pipeline.diffcomp import DiffComp, load_diffcomp
from pipeline.diffcomp.explain import (
    image_text_similarities,
    kept_of_reference,
    masking_probabilities,
    pair_similarities,
)
from pipeline.encoders.dual.open import load_dual_encoder
from pipeline.encoders.image_source import ImageSource, ImageTable
from pipeline.retrieval import Query, read_queries
from pipeline.runtime import device

VARIANT, MODELS = "diffcomp", Path("models/diffcomp")
IMAGES, TEXTS = Path("data/pairs/images"), Path("data/texts/pairs")
PAIRS, SHOWN = 400, 9
"""Pairs and queries whose similarities are counted, and images that are shown."""
ALIGNED, MASKED, QUERIES = "aligned pairs", "masked pairs", "test queries"


@dataclass(frozen=True)
class Seen:
    """An image and values [h, w] in [0, 1] over its middle square."""

    image: Image.Image
    values: np.ndarray
    text: str


@dataclass(frozen=True)
class Look:
    """Figures 3, 4 and 5 of the supplement."""

    masks: Sequence[Seen]
    """PSM's masking probabilities over training images."""
    kept: Sequence[Seen]
    """1 - alpha_j over the references of queries, one of each kind first."""
    similarities: Mapping[str, np.ndarray]
    """Kind of pair -> cos(f_I, f_T) [N]."""

    @property
    def means(self) -> dict[str, float]:
        return {name: round(float(values.mean()), 4) for name, values in self.similarities.items()}


def look_at(params: Params, queries: Path, images: Path) -> Look | None:
    """Look through the variant `diffcomp` at training pairs and at the queries of a benchmark; None where it is not trained.

    Raises ArtifactError where the training pairs or the images are not there.
    """
    if VARIANT not in params.variants():
        return None
    variant = params.variants()[VARIANT]
    model = load_diffcomp(MODELS / VARIANT, load_dual_encoder(variant.backbone, variant.pretrained)).to(
        device(params.runtime)
    )
    rows = [row for row in ShardSet.open(TEXTS).table().to_pylist() if row["caption_kind"] == "short"]
    return look_through(model, rows, ImageTable(IMAGES), read_queries(queries), ImageTable(images), params.seed)


def look_through(
    model: DiffComp,
    rows: Sequence[Mapping[str, Any]],
    pictures: ImageSource,
    queries: Sequence[Query],
    gallery: ImageSource,
    seed: int,
) -> Look:
    """rows: of `schemas.PAIRS`, over `images`; queries: over `gallery`. What is shown and counted is drawn from the seed."""
    if not rows or not queries:
        raise ArtifactError(f"{len(rows)} training pairs and {len(queries)} queries: nothing to look at")
    pairs, asked = _drawn(rows, PAIRS, seed), _drawn(queries, PAIRS, seed)
    images, captions = [pictures.image(row["image_id"]) for row in pairs], [row["caption"] for row in pairs]
    aligned, masked = pair_similarities(model, images, captions, [row["phrases"] for row in pairs], seed)
    between = image_text_similarities(
        model, [gallery.image(query.reference_id) for query in asked], [query.text for query in asked]
    )
    told = [number for number, row in enumerate(pairs) if row["phrases"]][:SHOWN]
    masks = [
        Seen(
            images[number],
            masking_probabilities(model, images[number], captions[number], pairs[number]["phrases"]),
            captions[number],
        )
        for number in told
    ]
    kept = []
    for query in _each_kind_first(asked)[:SHOWN]:
        reference = gallery.image(query.reference_id)
        kept.append(Seen(reference, kept_of_reference(model, reference, query.text), query.text))
    return Look(masks, kept, {ALIGNED: aligned, MASKED: masked, QUERIES: between})


def _drawn(items: Sequence[Any], count: int, seed: int) -> list[Any]:
    rows = np.random.default_rng([seed, len(items)]).permutation(len(items))[:count]
    return [items[row] for row in rows]


def _each_kind_first(queries: Sequence[Query]) -> list[Query]:
    """One query of each kind, then the others."""
    first = {query.category: query for query in reversed(queries)}
    shown = [first[kind] for kind in sorted(first)]
    return shown + [query for query in queries if query not in shown]
