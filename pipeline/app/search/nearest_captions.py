"""Reading an answer: which training captions a sampled target is near to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artifacts import ShardSet

FUSED_PAIRS, TEXTS = Path("data/fused/pairs"), Path("data/texts/pairs")
MAX_ROWS = 100_000
"""Of a large training set, the first so many captions are looked through."""


@dataclass(frozen=True)
class Caption:
    """A training pair near a sampled target."""

    text: str
    cosine: float


class TrainingCaptions:
    """Embeddings of the training pairs that the prior learned, with their captions."""

    def __init__(self, vectors: np.ndarray, captions: list[str]):
        self._vectors, self._captions = vectors, captions

    @classmethod
    def load(cls, fused: Path = FUSED_PAIRS, texts: Path = TEXTS) -> TrainingCaptions:
        """Raises ArtifactError where the training tables are not there."""
        ids, parts = [], []
        for table in ShardSet.open(fused, verify=False).shards(["id", "vector"]):
            column = table["vector"].combine_chunks()
            parts.append(column.flatten().to_numpy().reshape(len(table), -1))
            ids += table["id"].to_pylist()
            if len(ids) >= MAX_ROWS:
                break
        rows = (
            row
            for table in ShardSet.open(texts, verify=False).shards(["pair_id", "caption"])
            for row in table.to_pylist()
        )
        captions = {row["pair_id"]: row["caption"] for row in rows}
        return cls(np.concatenate(parts), [captions.get(pair_id, pair_id) for pair_id in ids])

    def nearest(self, target: np.ndarray, count: int) -> list[Caption]:
        """The `count` distinct captions nearest to the mean of targets [d] or [K, d], nearest first."""
        mean = np.atleast_2d(target).mean(axis=0)
        scores = self._vectors @ (mean / np.linalg.norm(mean))
        found: dict[str, float] = {}
        for row in np.argsort(-scores, kind="stable"):
            found.setdefault(self._captions[row], float(scores[row]))
            if len(found) == count:
                break
        return [Caption(text, cosine) for text, cosine in found.items()]
