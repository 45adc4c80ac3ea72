"""What all cells are trained on and scored against, read once a process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.artifacts import ArtifactError, ShardSet, schemas, sha256_file, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import CaptionParams, Params, load_params
from pipeline.diffcomp import DiffComp
from pipeline.diffcomp.images import LazyImages, training_images
from pipeline.encoders.batching import batches, encode_in_batches
from pipeline.encoders.image_source import ImageTable, centre_square, square_pixels
from pipeline.query.spaces import ImageEmbedder
from pipeline.retrieval import Query, read_queries
from pipeline.retrieval.protocols import MEAN, circo, recall_by_category
from pipeline.text.captions import share_of

IMAGES, TEXTS, BENCHMARKS = Path("data/pairs/images"), Path("data/texts/pairs"), Path("data/benchmarks")
NOUNS = Path("data/ablations/nouns")
KS, MAP_K = (1, 5, 10, 50), 5
"""Of the metrics R@K and mAP@K, those of the paper's tables."""


def short_rows() -> list[dict[str, Any]]:
    """The rows of `schemas.PAIRS` that DiffComp is trained on."""
    return share_of(ShardSet.open(TEXTS), load_params().diffcomp.data)


def training_pixels(size: int) -> Tensor | LazyImages:
    """Their images, uint8 [N, 3, size, size]."""
    ids = [row["image_id"] for row in short_rows()]
    return training_images(ImageTable(IMAGES, set(ids)), ids, size, load_params().jobs.workers)


def masking_nouns(captions: Sequence[str], params: CaptionParams) -> list[list[str]]:
    """The nouns of every caption. They are kept in `data/ablations/nouns`: the cells of granularity noun parse once."""
    made_of = {"texts": sha256_file(TEXTS / MANIFEST), "spacy_model": params.spacy_model}
    try:
        table = ShardSet.open(NOUNS, identity=made_of).table()
    except ArtifactError:
        from pipeline.text.phrases import nouns  # spaCy takes seconds that only this should pay

        rows = [
            {"pair_id": str(row), "image_id": "", "caption": caption, "caption_kind": "short", "phrases": found}
            for row, (caption, found) in enumerate(zip(captions, nouns(captions, params), strict=True))
        ]
        table = pa.Table.from_pylist(rows, schema=schemas.PAIRS)
        write_table(NOUNS, table, made_of)
    return table["phrases"].to_pylist()


class BenchmarkScorer:
    """Scores models on one benchmark. Its queries and the squares of its gallery's images are read once.

    Args:
        name: The benchmark's folder.
        size: The side of the squares, in pixels: what the models see.

    Raises:
        ArtifactError: The benchmark is not there, or the gallery lacks a reference; the first query is named.
    """

    def __init__(self, name: str, size: int):
        folder = BENCHMARKS / name
        self.queries: list[Query] = read_queries(folder / "queries")
        images = ImageTable(folder / "images")
        self.ids = images.ids
        self._rows = {image_id: row for row, image_id in enumerate(self.ids)}
        for query in self.queries:
            if query.reference_id not in self._rows:
                raise ArtifactError(f"{folder}: the reference of query {query.query_id!r} is not in the gallery")
        self._squares = [centre_square(images.image(image_id), size) for image_id in self.ids]

    def scores(self, model: DiffComp, batch_size: int) -> dict[str, dict[str, float]]:
        """Score a model by exact search, with the references left out.

        Args:
            model: In evaluation mode.
            batch_size: Images or queries that are encoded at once.

        Returns:
            Kind of query -> metric -> percent, and under `mean` the means over kinds.
        """
        references = [self._rows[query.reference_id] for query in self.queries]
        scores = self._query_vectors(model, batch_size) @ self._gallery_vectors(model, batch_size).T  # [Q, G]
        scores[np.arange(len(references)), references] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, : max(KS)]
        ranked = [[self.ids[row] for row in rows] for rows in best]
        kinds = [query.category or "all" for query in self.queries]
        targets = [query.target_ids for query in self.queries]
        found = recall_by_category(ranked, targets, kinds, KS)
        for kind, values in found.items():
            rows = [row for row, own in enumerate(kinds) if own == kind]
            if rows:
                values |= circo([ranked[row] for row in rows], [targets[row] for row in rows], (MAP_K,))
        of_kinds = [values[f"mAP@{MAP_K}"] for kind, values in found.items() if kind != MEAN]
        found[MEAN][f"mAP@{MAP_K}"] = float(np.mean(of_kinds))
        return {kind: {metric: round(value, 3) for metric, value in values.items()} for kind, values in found.items()}

    def _gallery_vectors(self, model: DiffComp, batch_size: int) -> np.ndarray:
        """f_I of the gallery, [G, d], embedded as every gallery in a variant's space."""
        embedder = ImageEmbedder(model.encoder)
        progress = tqdm(list(batches(self._squares, batch_size)), desc="gallery", mininterval=5.0, delay=1.0)
        return np.concatenate([embedder.embed_images(batch) for batch in progress])

    def _query_vectors(self, model: DiffComp, batch_size: int) -> np.ndarray:
        """f_comp of the queries, [Q, d]."""
        encoder = model.encoder

        def compose(queries: Sequence[Query]) -> Tensor:
            texts = encoder.tokenize([query.text for query in queries]).to(encoder.mean.device)
            references = [self._squares[self._rows[query.reference_id]] for query in queries]
            pixels = torch.stack([square_pixels(image, encoder.image_size) for image in references])
            return model.compose(encoder.normalise(pixels), texts)

        return encode_in_batches(compose, self.queries, batch_size, "queries")


def data_hashes(params: Params) -> dict[str, Any]:
    """The data that decide a cell's result, beside its configuration and seed: the hashes of their manifests."""
    scored = {
        name: {part: sha256_file(BENCHMARKS / name / part / MANIFEST) for part in ("queries", "images")}
        for name in params.ablations.benchmarks
    }
    return {"images": sha256_file(IMAGES / MANIFEST), "texts": sha256_file(TEXTS / MANIFEST), "benchmarks": scored}
