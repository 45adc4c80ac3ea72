"""What all cells are trained on and scored against, read once a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.artifacts import ArtifactError, ShardSet, schemas, sha256_file, write_table
from pipeline.artifacts.shards import MANIFEST
from pipeline.config import CaptionParams, Params
from pipeline.diffcomp import DiffComp
from pipeline.encoders.batching import encode_in_batches
from pipeline.encoders.image_source import ImageTable
from pipeline.retrieval import Query, read_queries
from pipeline.retrieval.protocols import recall_by_category

IMAGES, TEXTS, BENCHMARKS = Path("data/pairs/images"), Path("data/texts/pairs"), Path("data/benchmarks")
NOUNS = Path("data/ablations/nouns")
K = 10


def short_rows() -> list[dict[str, Any]]:
    """The rows of `schemas.PAIRS` that DiffComp is trained on."""
    return [row for row in ShardSet.open(TEXTS).table().to_pylist() if row["caption_kind"] == "short"]


def training_pixels(size: int) -> Tensor:
    """Their images, uint8 [N, 3, size, size]."""
    return ImageTable(IMAGES).pixels([row["image_id"] for row in short_rows()], size)


def masking_nouns(captions: Sequence[str], params: CaptionParams) -> list[list[str]]:
    """The nouns of every caption; kept in `data/ablations/nouns`, so that the cells of granularity noun parse them once."""
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


class Judge:
    """One benchmark: its queries, and the pixels of its gallery. Raises ArtifactError where it is not there."""

    def __init__(self, name: str, size: int):
        folder = BENCHMARKS / name
        self.queries: list[Query] = read_queries(folder / "queries")
        pictures = ImageTable(folder / "images")
        self.ids, self.size = pictures.ids, size
        self._rows = {image_id: row for row, image_id in enumerate(self.ids)}
        for query in self.queries:
            if query.reference_id not in self._rows:
                raise ArtifactError(f"{folder}: the reference of query {query.query_id!r} is not in the gallery")
        self._pixels = pictures.pixels(self.ids, size)  # uint8 [G, 3, size, size]

    def recall(self, model: DiffComp, batch_size: int) -> dict[str, float]:
        """R@10 in percent by kind of query, and under `mean` over kinds: exact search, the reference left out."""
        encoder = model.encoder
        where = encoder.mean.device

        def pictures(rows: Sequence[int]) -> Tensor:
            return encoder.normalise(self._pixels[list(rows)])

        def compose(queries: Sequence[Query]) -> Tensor:
            texts = encoder.tokenize([query.text for query in queries]).to(where)
            return model.compose(pictures([self._rows[query.reference_id] for query in queries]), texts)

        gallery = _encoded(lambda rows: model.encode_image(pictures(rows)), range(len(self.ids)), batch_size, "gallery")
        vectors = _encoded(compose, self.queries, batch_size, "queries")
        scores = vectors @ gallery.T  # [Q, G]
        scores[np.arange(len(vectors)), [self._rows[query.reference_id] for query in self.queries]] = -np.inf
        first = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        ranked = [[self.ids[row] for row in rows] for rows in first]
        kinds = [query.category or "all" for query in self.queries]
        found = recall_by_category(ranked, [query.target_ids for query in self.queries], kinds, (K,))
        return {kind: round(values[f"R@{K}"], 3) for kind, values in found.items()}


def _encoded(
    encode: Callable[[Sequence[Any]], Tensor], items: Sequence[Any], batch_size: int, title: str
) -> np.ndarray:
    with torch.inference_mode():
        return encode_in_batches(encode, items, batch_size, title)


def content(params: Params) -> dict[str, Any]:
    """What decides a cell beside its configuration and seed: the data, by their manifests."""
    judged = {
        name: {part: sha256_file(BENCHMARKS / name / part / MANIFEST) for part in ("queries", "images")}
        for name in params.ablations.benchmarks
    }
    return {"images": sha256_file(IMAGES / MANIFEST), "texts": sha256_file(TEXTS / MANIFEST), "benchmarks": judged}
