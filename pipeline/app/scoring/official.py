"""From predictions and annotations to official figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.app.scoring.predictions import Asked, Predictions, check_lists
from pipeline.retrieval import official
from pipeline.retrieval.submissions import DEPTH, SUBSET_DEPTH, Lists, PredictionError
from pipeline.sources.benchmarks import Annotations


def score(annotations: Sequence[Annotations], predictions: Predictions) -> dict[str, Any]:
    """A split's official scores in percent (see `official`).

    Raises PredictionError for targets that are private and for lists that `check_lists` refuses. A
    list needs 50 images, or as many as there are; CIRR's subset lists need three, GeneCIS' all of
    the query's gallery up to three.
    """
    private = [one.name for one in annotations if not one.has_targets]
    if private:
        raise PredictionError(f"{private[0]}: the targets of this split are private; its server scores it (cir submit)")
    asked = Asked.of(annotations)
    if asked.benchmark == "cirr":
        return _score_cirr(asked, predictions)
    small = asked.benchmark == "genecis"
    lists = predictions.subset or predictions.ranked if small else predictions.ranked
    check_whole(lists, asked, SUBSET_DEPTH if small else DEPTH)
    rankings = [lists[query.query_id] for query in asked.queries]
    targets, categories = [query.targets for query in asked.queries], [query.category for query in asked.queries]
    if asked.benchmark == "circo":
        return official.circo(rankings, targets, [query.aspects for query in asked.queries])
    return (official.genecis if small else official.fashioniq)(rankings, targets, categories)


def check_whole(lists: Lists, asked: Asked, depth: int) -> None:
    """Every query answered with known images, `depth` of them or all that there are but the reference."""

    def least(query: Any) -> int:
        gallery = asked.galleries[query.query_id]
        return depth if gallery is None else min(depth, len(gallery - {query.reference}))

    check_lists(lists, asked, least, lambda query: asked.galleries[query.query_id])


def subset_lists(predictions: Predictions, asked: Asked) -> Lists | None:
    """CIRR's rankings within the groups, checked: those of a file of their own, else what the full rankings say, else None."""
    if predictions.subset:
        check_lists(
            predictions.subset,
            asked,
            lambda query: min(SUBSET_DEPTH, len(query.subset)),
            lambda query: {*query.subset, query.reference},
        )
        return predictions.subset
    within = {}
    for query in asked.queries:
        group = frozenset(query.subset)
        within[query.query_id] = [name for name in predictions.ranked.get(query.query_id, ()) if name in group]
        if len(within[query.query_id]) < len(group):
            return None
    return within


def _score_cirr(asked: Asked, predictions: Predictions) -> dict[str, Any]:
    ranked = predictions.ranked or None
    if ranked is not None or not predictions.subset:
        check_whole(predictions.ranked, asked, DEPTH)
    subset = subset_lists(predictions, asked)
    in_order = [query.query_id for query in asked.queries]
    return official.cirr(
        None if ranked is None else [ranked[name][: DEPTH + 1] for name in in_order],
        None if subset is None else [subset[name] for name in in_order],
        [query.targets for query in asked.queries],
        [query.reference for query in asked.queries],
        [query.subset for query in asked.queries],
    )
