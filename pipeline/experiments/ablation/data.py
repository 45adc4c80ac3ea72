"""What all cells are trained on and scored against, read once a process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from pipeline.artifacts import ArtifactError, ShardSet, schemas, sha256_file, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import CaptionParams, Params, load_params
from pipeline.diffcomp import DiffComp
from pipeline.encoders.batching import batches, encode_in_batches
from pipeline.encoders.image_source import ImageTable, centre_square, square_pixels
from pipeline.encoders.training_images import IN_MEMORY, LazyImages, training_images
from pipeline.query.spaces import ImageEmbedder
from pipeline.retrieval import Query, read_queries
from pipeline.retrieval.benchmarks import BenchmarkFolder
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
    """Scores models on one benchmark. Its queries and, where they fit, the squares of its images are read once.

    Args:
        name: The benchmark's folder.
        size: The side of the squares, in pixels: what the models see.
        in_memory: Squares of more bytes than this do not stay in memory.

    Raises:
        ArtifactError: The benchmark is not there, or the gallery lacks a reference; the first query is named.
    """

    def __init__(self, name: str, size: int, in_memory: int = IN_MEMORY):
        folder = BENCHMARKS / name
        self._excludes_reference = BenchmarkFolder(folder, name).benchmark.excludes_reference
        self.queries: list[Query] = read_queries(folder / "queries")
        self._images, self._size = ImageTable(folder / "images"), size
        self.ids = self._images.ids
        self._rows = {image_id: row for row, image_id in enumerate(self.ids)}
        for query in self.queries:
            if query.reference_id not in self._rows:
                raise ArtifactError(f"{folder}: the reference of query {query.query_id!r} is not in the gallery")
        kept = 3 * size * size * len(self.ids) <= in_memory
        self._squares = [self._square(row) for row in range(len(self.ids))] if kept else None

    def _square(self, row: int) -> Image.Image:
        """An image's square, read."""
        return centre_square(self._images.image(self.ids[row]), self._size)

    def _chosen(self, rows: Sequence[int]) -> list[Image.Image]:
        """The squares of some rows."""
        return [self._squares[row] if self._squares else self._square(row) for row in rows]

    def scores(self, model: DiffComp, batch_size: int) -> dict[str, dict[str, float]]:
        """Score a model by exact search, as the benchmark's protocol says: mostly with the references left out.

        Args:
            model: In evaluation mode.
            batch_size: Images or queries that are encoded at once.

        Returns:
            Kind of query -> metric -> percent, and under `mean` the means over kinds.
        """
        references = [self._rows[query.reference_id] for query in self.queries]
        scores = self._query_scores(model, self._gallery_vectors(model, batch_size), batch_size)  # [Q, G]
        if self._excludes_reference:
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
        rows = list(batches(range(len(self.ids)), batch_size))
        progress = tqdm(rows, desc="gallery", mininterval=5.0, delay=1.0)
        return np.concatenate([embedder.embed_images(self._chosen(batch)) for batch in progress])

    def _query_scores(self, model: DiffComp, gallery: np.ndarray, batch_size: int) -> np.ndarray:
        """The products of the queries' f_comp with a gallery [G, d]: [Q, G], the mean over a query's wordings."""
        counts = [1 + len(query.alternatives) for query in self.queries]
        worded = [
            query.worded(number) for query, count in zip(self.queries, counts, strict=True) for number in range(count)
        ]
        scores = self._query_vectors(model, worded, batch_size) @ gallery.T
        if len(worded) == len(counts):
            return scores
        starts = np.cumsum([0, *counts[:-1]])
        return np.add.reduceat(scores, starts) / np.array(counts, dtype=scores.dtype)[:, None]

    def _query_vectors(self, model: DiffComp, queries: Sequence[Query], batch_size: int) -> np.ndarray:
        """f_comp of queries in one wording each, [Q, d]."""
        encoder = model.encoder

        def compose(queries: Sequence[Query]) -> Tensor:
            texts = encoder.tokenize([query.text for query in queries]).to(encoder.mean.device)
            references = self._chosen([self._rows[query.reference_id] for query in queries])
            pixels = torch.stack([square_pixels(image, encoder.image_size) for image in references])
            return model.compose(encoder.normalise(pixels), texts)

        return encode_in_batches(compose, queries, batch_size, "queries")


def data_hashes(params: Params) -> dict[str, Any]:
    """The data that decide a cell's result, beside its configuration and seed: the hashes of their manifests."""
    scored = {
        name: {part: sha256_file(BENCHMARKS / name / part / MANIFEST) for part in ("queries", "images")}
        for name in params.ablations.benchmarks
    }
    return {"images": sha256_file(IMAGES / MANIFEST), "texts": sha256_file(TEXTS / MANIFEST), "benchmarks": scored}
