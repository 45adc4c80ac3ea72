"""How much of what exact search finds an index finds."""

from __future__ import annotations

import numpy as np

from pipeline.artifacts import ShardSet
from pipeline.retrieval.baselines import image_text
from pipeline.retrieval.gallery_vectors import vectors, vectors_at
from pipeline.retrieval.index import Index

TOP_K = 10
TIE = 1e-6
"""Scores so near to the last of the top K count as equal to it: a gallery may hold an image twice."""


def recall_against_exact(index: Index, gallery: ShardSet, queries: int, seed: int) -> float | None:
    """Recall@10 of the index's own search against exact search over the gallery's shards.

    A gallery vector as its own query is too easy: it is a node of the graph, the centre of its list.
    So a query lies halfway between two gallery vectors that are drawn together, as a reference and what
    changes it, and the reference is excluded, as `retrieve` does.

    Args:
        index: The index of the gallery.
        gallery: The shards that it was built from.
        queries: How many queries are drawn.
        seed: Decides which.

    Returns:
        A number in [0, 1]; None where there is nothing to find.
    """
    rows, k = len(index), min(TOP_K, len(index) - 1)
    if k < 1:
        return None
    rng = np.random.default_rng([seed, rows])
    references = rng.choice(rows, min(queries, rows), replace=False)  # [Q]
    others = (references + rng.integers(1, rows, len(references))) % rows
    between = image_text(vectors_at(gallery, references), vectors_at(gallery, others))  # [Q, d]
    ids, _ = index.search(between, k, exclude=[index.ids[position] for position in references])
    found = np.full((len(references), k), -1)
    for row, names in enumerate(ids):
        found[row, : len(names)] = index.positions(names)
    return float(_is_hit(gallery, between, references, found).mean())


def _is_hit(gallery: ShardSet, queries: np.ndarray, excluded: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Whether each found position [Q, k] belongs to its query's exact top k (-1: nothing was found)."""
    k, numbers, start = found.shape[1], np.arange(len(queries)), 0
    best = np.full((len(queries), k), -np.inf, np.float32)
    scores = np.full(found.shape, -np.inf, np.float32)
    for _, rows in vectors(gallery):
        here = queries @ rows.T  # [Q, rows]
        inside = (excluded >= start) & (excluded < start + len(rows))
        here[numbers[inside], excluded[inside] - start] = -np.inf
        query, place = np.nonzero((found >= start) & (found < start + len(rows)))
        scores[query, place] = here[query, found[query, place] - start]
        best = np.partition(np.concatenate([best, here], axis=1), -k, axis=1)[:, -k:]
        start += len(rows)
    return scores >= best.min(axis=1, keepdims=True) - TIE
