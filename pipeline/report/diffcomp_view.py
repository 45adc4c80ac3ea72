"""What the trained DiffComp sees: where it masks training images, and where it keeps references.

Also how alike its pairs of image and text are.
"""

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
from pipeline.text.captions import share_of

VARIANT, MODELS = "diffcomp", Path("models/diffcomp")
IMAGES, TEXTS = Path("data/pairs/images"), Path("data/texts/pairs")
PAIRS, SHOWN = 400, 9
"""Pairs and queries whose similarities are counted, and images that are shown."""
ALIGNED, MASKED, QUERIES = "aligned pairs", "masked pairs", "test queries"


@dataclass(frozen=True)
class ImageMap:
    """An image and values [h, w] in [0, 1] over its middle square."""

    image: Image.Image
    values: np.ndarray
    text: str


@dataclass(frozen=True)
class DiffCompView:
    """Figures 3, 4 and 5 of the supplement."""

    masks: Sequence[ImageMap]
    """PSM's masking probabilities over training images."""
    kept: Sequence[ImageMap]
    """1 - lambda_j over the references of queries, one of each kind first."""
    similarities: Mapping[str, np.ndarray]
    """Kind of pair -> cos(f_I, f_T) [N]."""

    @property
    def means(self) -> dict[str, float]:
        return {name: round(float(values.mean()), 4) for name, values in self.similarities.items()}

    @property
    def order(self) -> dict[str, float]:
        """Figure 4's order: masked pairs lie left of aligned ones, near the test queries.

        `masked left of aligned` is the share of pairs whose cosine falls when they are masked. `gap to queries` is how
        far the mean of the masked pairs lies from that of the queries, in distances of the aligned pairs: 0 where they
        meet, 1 where masking brings them no nearer.
        """
        aligned, masked, queries = (self.similarities[name] for name in (ALIGNED, MASKED, QUERIES))
        distance = abs(aligned.mean() - queries.mean())
        return {
            "masked left of aligned": round(float((masked < aligned).mean()), 4),
            "gap to queries": round(float(abs(masked.mean() - queries.mean()) / distance), 4) if distance else 0.0,
        }


def open_view(params: Params, queries: Path, images: Path) -> DiffCompView | None:
    """Show training pairs and the queries of a benchmark to the variant `diffcomp`.

    Args:
        params: Says how the variant was trained.
        queries: The benchmark's queries.
        images: The benchmark's images.

    Returns:
        None where the variant is not trained.

    Raises:
        ArtifactError: The training pairs or the images are not there.
    """
    if VARIANT not in params.variants():
        return None
    variant = params.variants()[VARIANT]
    encoder = load_dual_encoder(variant.backbone, variant.pretrained, variant.image_size)
    model = load_diffcomp(MODELS / VARIANT, encoder).to(device(params.runtime))
    pairs = share_of(ShardSet.open(TEXTS), params.diffcomp.data)
    return make_view(model, pairs, ImageTable(IMAGES), read_queries(queries), ImageTable(images), params.seed)


def make_view(
    model: DiffComp,
    pairs: Sequence[Mapping[str, Any]],
    images: ImageSource,
    queries: Sequence[Query],
    gallery: ImageSource,
    seed: int,
) -> DiffCompView:
    """Show a sample of pairs and queries to a model.

    Args:
        model: The trained model.
        pairs: Rows of `schemas.PAIRS`.
        images: The images of the pairs.
        queries: Queries of a benchmark.
        gallery: The images of the queries.
        seed: Decides what is shown and counted.

    Raises:
        ArtifactError: There are no pairs or no queries.
    """
    if not pairs or not queries:
        raise ArtifactError(f"{len(pairs)} training pairs and {len(queries)} queries: nothing to show")
    drawn, asked = _drawn(pairs, PAIRS, seed), _drawn(queries, PAIRS, seed)
    shown, captions = [images.image(row["image_id"]) for row in drawn], [row["caption"] for row in drawn]
    aligned, masked = pair_similarities(model, shown, captions, [row["phrases"] for row in drawn], seed)
    between = image_text_similarities(
        model, [gallery.image(query.reference_id) for query in asked], [query.text for query in asked]
    )
    with_phrases = [number for number, row in enumerate(drawn) if row["phrases"]][:SHOWN]
    masks = [
        ImageMap(
            shown[number],
            masking_probabilities(model, shown[number], captions[number], drawn[number]["phrases"]),
            captions[number],
        )
        for number in with_phrases
    ]
    kept = []
    for query in _each_kind_first(asked)[:SHOWN]:
        reference = gallery.image(query.reference_id)
        kept.append(ImageMap(reference, kept_of_reference(model, reference, query.text), query.text))
    return DiffCompView(masks, kept, {ALIGNED: aligned, MASKED: masked, QUERIES: between})


def _drawn(items: Sequence[Any], count: int, seed: int) -> list[Any]:
    rows = np.random.default_rng([seed, len(items)]).permutation(len(items))[:count]
    return [items[row] for row in rows]


def _each_kind_first(queries: Sequence[Query]) -> list[Query]:
    """One query of each kind, then the others."""
    first = {query.category: query for query in reversed(queries)}
    shown = [first[kind] for kind in sorted(first)]
    return shown + [query for query in queries if query not in shown]
