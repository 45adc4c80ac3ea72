"""The training captions near a sampled target, which say in words what was sampled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifacts import ShardSet

FUSED_PAIRS, TEXTS = Path("data/fused/pairs"), Path("data/texts/pairs")
MAX_ROWS = 100_000
"""Rows of a large training set that are compared: the first ones."""


@dataclass(frozen=True)
class Caption:
    """The caption of a training pair near a sampled target."""

    text: str
    cosine: float


class TrainingCaptions:
    """Embeddings of the prior's training pairs, with their captions."""

    def __init__(self, vectors: np.ndarray, captions: list[str]):
        """vectors: [N, d], of length 1; captions: N texts."""
        self._vectors, self._captions = vectors, captions

    @classmethod
    def load(cls, fused: Path = FUSED_PAIRS, texts: Path = TEXTS) -> TrainingCaptions:
        """Read the training tables.

        Args:
            fused: Shard set with the embeddings of the training pairs.
            texts: Shard set with their captions.

        Returns:
            The first `MAX_ROWS` pairs, rounded up to whole shards.

        Raises:
            ArtifactError: When a table is missing or damaged.
        """
        ids: list[str] = []
        vectors = []
        for table in ShardSet.open(fused, verify=False).shards(["id", "vector"]):
            column = table["vector"].combine_chunks()
            vectors.append(column.flatten().to_numpy().reshape(len(table), -1))
            ids += table["id"].to_pylist()
            if len(ids) >= MAX_ROWS:
                break
        captions = {
            row["pair_id"]: row["caption"]
            for table in ShardSet.open(texts, verify=False).shards(["pair_id", "caption"])
            for row in table.to_pylist()
        }
        return cls(np.concatenate(vectors), [captions.get(pair_id, pair_id) for pair_id in ids])

    def nearest(self, target: np.ndarray, count: int) -> list[Caption]:
        """Find the captions nearest to the mean of sampled targets.

        Args:
            target: One target [d] or K of them [K, d].
            count: The number of captions.

        Returns:
            Distinct captions with the cosine of their pair, nearest first.
        """
        mean = np.atleast_2d(target).mean(axis=0)
        scores = self._vectors @ (mean / np.linalg.norm(mean))
        found: dict[str, float] = {}
        for row in np.argsort(-scores, kind="stable"):
            found.setdefault(self._captions[row], float(scores[row]))
            if len(found) == count:
                break
        return [Caption(text, cosine) for text, cosine in found.items()]
