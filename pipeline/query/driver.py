"""Running families over the queries of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pipeline.encoders.image_source import ImageSource
from pipeline.query.interface import Descriptions, Family, QueryVectors
from pipeline.retrieval.queries import Query


def infer_all_texts(families: Iterable[Family], queries: Sequence[Query], images: ImageSource) -> None:
    """Let f_M write all that `answer_all` will need.

    Args:
        families: As for `answer_all`, over a describer that keeps its texts.
        queries: Q queries.
        images: Holds the references.
    """
    for wording in _wordings(queries):
        for family in families:
            family.infer_texts(wording, images)


def answer_all(families: Iterable[Family], queries: Sequence[Query], images: ImageSource) -> dict[str, QueryVectors]:
    """Answer queries with every method of some families.

    A query may have several wordings. Each is answered by itself, and they count as further hypotheses of the query.
    Descriptions that one family infers are passed on to those after it.

    Args:
        families: In the order in which they are asked.
        queries: Q queries.
        images: Holds the references.

    Returns:
        Method -> its vectors: [Q, d], or [Q, H, d] for H hypotheses over all wordings. The descriptions are those of
        the first wording.
    """
    families = list(families)
    answers = [_answer_wording(families, wording, images) for wording in _wordings(queries)]
    return {method: _joined([answer[method] for answer in answers]) for method in answers[0]}


def first_descriptions(answers: Iterable[QueryVectors]) -> Descriptions | None:
    """The descriptions of the first answer that has some."""
    return next((answer.descriptions for answer in answers if answer.descriptions is not None), None)


def _wordings(queries: Sequence[Query]) -> Iterator[list[Query]]:
    """The queries in each of their wordings. All have equally many."""
    for number in range(1 + max(len(query.alternatives) for query in queries)):
        yield [query.worded(number) for query in queries]


def _answer_wording(
    families: Sequence[Family], queries: Sequence[Query], images: ImageSource
) -> dict[str, QueryVectors]:
    """The answers to queries of one wording each."""
    answers: dict[str, QueryVectors] = {}
    for family in families:
        answers |= family.answer(queries, images, descriptions=first_descriptions(answers.values()))
    return answers


def _joined(wordings: Sequence[QueryVectors]) -> QueryVectors:
    """The hypotheses of all wordings as one: [Q, H, d], H being 1 for one vector a query."""
    first = wordings[0]
    if len(wordings) == 1:
        return first
    vectors = [one.vectors if one.vectors.ndim == 3 else one.vectors[:, None] for one in wordings]
    return QueryVectors(first.space, np.concatenate(vectors, axis=1), first.descriptions)
