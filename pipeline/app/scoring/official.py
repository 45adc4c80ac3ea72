"""From predictions and annotations to official scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.app.scoring.predictions import AnnotatedSplit, Predictions, check_lists
from pipeline.retrieval.submissions import DEPTH, SUBSET_DEPTH, Lists, PredictionError
from pipeline.sources.benchmarks import AnnotatedQuery, Annotations


def score(annotations: Sequence[Annotations], predictions: Predictions) -> dict[str, Any]:
    """The official scores of a split in percent (see `Benchmark.score`).

    A list needs 50 images, or as many as there are. A list within CIRR's group or GeneCIS' small gallery
    needs three.

    Args:
        annotations: The split's parts.
        predictions: Ranked lists for all its queries.

    Raises:
        PredictionError: The targets are private, or `check_lists` rejects the lists.
    """
    private = [part.name for part in annotations if not part.has_targets]
    if private:
        raise PredictionError(f"{private[0]}: the targets of this split are private; its server scores it (cir submit)")
    split = AnnotatedSplit.of(annotations)
    if split.benchmark.own_galleries:
        lists = predictions.subset or predictions.ranked
        check_whole(lists, split, SUBSET_DEPTH)
        return split.benchmark.score(split.truth, subset_ranked=split.in_order(lists))
    ranked = predictions.ranked
    if ranked or not predictions.subset:
        check_whole(ranked, split, DEPTH)
    within = subset_lists(predictions, split) if split.benchmark.scores_groups else None
    return split.benchmark.score(
        split.truth,
        split.in_order(ranked) if ranked else (),
        () if within is None else split.in_order(within),
    )


def check_whole(lists: Lists, split: AnnotatedSplit, depth: int) -> None:
    """Check that every query is answered with known images, `depth` of them or all that there are but the reference.

    Raises:
        PredictionError: See `check_lists`.
    """

    def least(query: AnnotatedQuery) -> int:
        gallery = split.galleries[query.query_id]
        return depth if gallery is None else min(depth, len(gallery - {query.reference}))

    check_lists(lists, split, least, lambda query: split.galleries[query.query_id])


def subset_lists(predictions: Predictions, split: AnnotatedSplit) -> Lists | None:
    """The rankings within the queries' groups: those of a file of their own, else what the full rankings say.

    Returns:
        Query id -> ranked image ids; None where a full ranking lacks a member of the group.

    Raises:
        PredictionError: See `check_lists`.
    """
    if predictions.subset:
        check_lists(
            predictions.subset,
            split,
            lambda query: min(SUBSET_DEPTH, len(query.subset)),
            lambda query: {*query.subset, query.reference},
        )
        return predictions.subset
    within = {}
    for query in split.queries:
        group = frozenset(query.subset)
        within[query.query_id] = [name for name in predictions.ranked.get(query.query_id, ()) if name in group]
        if len(within[query.query_id]) < len(group):
            return None
    return within
