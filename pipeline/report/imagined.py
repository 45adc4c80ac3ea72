"""What features show: those of sample queries as images, and how faithful such images are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.artifacts import ArtifactError
from pipeline.decoder.imagine import Imagination
from pipeline.fusion_diff.tables import read_vectors
from pipeline.query.cirevl import NAME as CIREVL
from pipeline.query.fusion_diff import FUSION_DIFF
from pipeline.report.figures import Cell, ImageRow
from pipeline.report.metrics import RankedQueries
from pipeline.report.names import describe
from pipeline.retrieval import Query

ANSWERS = 3
"""Of Fusion-Diff, beside the first one of each method that it is compared with."""


@dataclass(frozen=True)
class Features:
    """Features of a benchmark's queries and images, and the decoder that they are shown by."""

    imagination: Imagination
    queries: int
    """How many are shown."""
    asked: Path
    """z_r,delta by query."""
    sampled: Path
    """A sampled target by query."""
    gallery: Path
    """f_M of the gallery's images."""

    def decoded(self, queries: Sequence[Query]) -> list[tuple[Image.Image, ...]]:
        """What z_r,delta, the sampled target and the true target's z show, for each query."""
        names = [query.query_id for query in queries]
        vectors = [
            _rows(self.asked, names),
            _rows(self.sampled, names),
            _rows(self.gallery, [query.target_ids[0] for query in queries]),
        ]
        images = self.imagination.images(np.concatenate(vectors))
        count = len(queries)
        return list(zip(images[:count], images[count : 2 * count], images[2 * count :], strict=True))


def compared(answers: RankedQueries, recall: Mapping[str, float]) -> list[str]:
    """CIReVL, and the best of the methods that are not Fusion-Diff's.

    Args:
        answers: Of all methods.
        recall: Method -> what decides which is best.
    """
    peers = [name for name in answers.by_method if describe(name).family not in (FUSION_DIFF, CIREVL)]
    best = [max(peers, key=lambda name: recall[name])] if peers else []
    return [name for name in (CIREVL, *best) if name in answers.by_method]


def imagined_rows(
    answers: RankedQueries,
    rows: Sequence[int],
    features: Features,
    images: Mapping[str, Image.Image],
    descriptions: Mapping[str, str],
    methods: Sequence[str],
) -> list[ImageRow]:
    """The figure's rows: a reference, what its features show, its target and the first answers.

    Args:
        answers: Of all methods.
        rows: Which queries.
        features: Of them.
        images: Of references, targets and answers, by id.
        descriptions: Query id -> the target's.
        methods: That are compared with Fusion-Diff.
    """
    queries = [answers.queries[row] for row in rows]
    found = []
    for row, query, (asked, sampled, target) in zip(rows, queries, features.decoded(queries), strict=True):

        def answer(method: str, rank: int, row: int = row, query: Query = query) -> Cell:
            name, label = answers.ranked(method)[row][rank], f"{describe(method).label.split(' (')[0]}: {rank + 1}"
            return Cell(label, images[name], name in query.target_ids)

        cells = [
            Cell("Reference", images[query.reference_id]),
            Cell("z(r, δ)", asked),
            Cell("Sampled", sampled),
            Cell("z of target", target),
            Cell("Target", images[query.target_ids[0]], True),
            *(answer(FUSION_DIFF, rank) for rank in range(ANSWERS)),
            *(answer(method, 0) for method in methods),
        ]
        found.append(ImageRow(query.text, descriptions.get(query.query_id, ""), cells))
    return found


def shown_images(answers: RankedQueries, rows: Sequence[int], methods: Sequence[str]) -> set[str]:
    """The images that `imagined_rows` needs."""
    wanted = set()
    for row in rows:
        query = answers.queries[row]
        wanted |= {query.reference_id, query.target_ids[0], *answers.ranked(FUSION_DIFF)[row][:ANSWERS]}
        wanted |= {answers.ranked(method)[row][0] for method in methods}
    return wanted


def fidelity_rows(fidelity: Mapping[str, Any]) -> list[list[str]]:
    """A line for each benchmark and what stands for its images: its name, their number, and three figures."""
    labels = {
        "decoded": "decoded from z",
        "nearest_training_image": "nearest training image",
        "shuffled": "decoded from another's z",
    }
    return [
        [benchmark, f"{scores['images']:,}", label]
        + [f"{scores[name]['cosine']:.2f}", f"{scores[name]['R@1']:.1f}", f"{scores[name]['R@10']:.1f}"]
        for benchmark, scores in fidelity.get("benchmarks", {}).items()
        for name, label in labels.items()
    ]


def _rows(folder: Path, names: Sequence[str]) -> np.ndarray:
    """The vectors of some ids [N, d].

    Raises:
        ArtifactError: One is not there; it is named.
    """
    ids, vectors, _ = read_vectors(folder)
    places = {name: row for row, name in enumerate(ids)}
    missing = [name for name in names if name not in places]
    if missing:
        raise ArtifactError(f"{folder}: there is no vector of {missing[0]!r}")
    return vectors[[places[name] for name in names]].numpy()
