"""P(yes) of answers to queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from pipeline.config import RerankerParams
from pipeline.encoders.batching import batches
from pipeline.encoders.embedding.ahead import one_ahead
from pipeline.encoders.image_source import ImageSource
from pipeline.encoders.mllm.interface import MllmInput, Verifier
from pipeline.rerank.order import mixed_scores, new_order
from pipeline.retrieval import Query
from pipeline.retrieval.rankings import Ranking


@dataclass(frozen=True)
class Reranker:
    """Verifies answers with one model.

    Args:
        params: The question's two answers, and how many pairs are asked at once.
        model: Answers it.
    """

    params: RerankerParams
    model: Verifier

    def probabilities(
        self, queries: Sequence[Query], answers: Sequence[Sequence[str]], references: ImageSource, gallery: ImageSource
    ) -> list[np.ndarray]:
        """P(yes) of each answer.

        Pairs of one query follow each other, so that a backend can keep what they share.

        Args:
            queries: Q queries.
            answers: For each the ids of the images to verify.
            references: Holds the queries' references.
            gallery: Holds the answers.

        Returns:
            For each query float32 [K], in the order of its answers.

        Raises:
            ParameterError: An answer of the question is not one token of the model.
        """
        counts = [len(ids) for ids in answers]
        pairs, found = one_ahead(self._pairs(queries, answers, references, gallery)), []
        with tqdm(total=sum(counts), desc="rerank", unit="pair", leave=False) as bar:
            for batch in whole_queries(pairs, self.params.batch_size):
                found.append(self.model.token_probabilities(batch, self.params.answers)[:, 0])
                bar.update(len(batch))
        return np.split(np.concatenate([np.zeros(0, np.float32), *found]), np.cumsum(counts)[:-1])

    def _pairs(
        self, queries: Sequence[Query], answers: Sequence[Sequence[str]], references: ImageSource, gallery: ImageSource
    ) -> Iterator[list[MllmInput]]:
        """One query's pairs at a time, at most a batch: all of a benchmark's images would not fit into memory."""
        side = self.params.max_side
        for query, ids in zip(queries, answers, strict=True):
            asked = MllmInput(query.text, references.image(query.reference_id, side)) if ids else MllmInput()
            for part in batches(ids, self.params.batch_size):
                yield [replace(asked, candidate=gallery.image(image_id, side)) for image_id in part]


def whole_queries(parts: Iterable[list[MllmInput]], size: int) -> Iterator[list[MllmInput]]:
    """Batches of at most `size` pairs that tear no part apart: what a query's pairs share is computed once a batch."""
    batch: list[MllmInput] = []
    for part in parts:
        if len(batch) + len(part) > size:
            yield batch
            batch = []
        batch = batch + part
    if batch:
        yield batch


def reranked(ranking: Ranking, probabilities: dict[str, float], top: int, weight: float) -> Ranking:
    """One query's ranked list, and its subset's, in their new order.

    Args:
        ranking: The first order.
        probabilities: Image -> P(yes), for the first `top` of the list and for the subset.
        top: K.
        weight: How much P(yes) counts. In a subset, whose scores are not kept, places count as scores.

    Returns:
        The same images, with the scores that they are now ordered by.
    """
    ids, subset = ranking.ranked_ids, ranking.subset_ranked_ids
    mixed = mixed_scores(ranking.scores, [probabilities[name] for name in ids[:top]], weight)
    order = new_order(mixed)
    places = [float(-place) for place in range(len(subset))]
    within = new_order(mixed_scores(places, [probabilities[name] for name in subset], weight)) if subset else []
    return Ranking(
        ranking.query_id,
        tuple(ids[place] for place in order),
        tuple(float(mixed[place]) for place in order),
        tuple(subset[place] for place in within),
    )
