"""The order of verified answers against numbers by hand, and the pairs that a reranker asks about."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.config import RerankerParams
from pipeline.encoders.image_source import InMemoryImages
from pipeline.rerank.order import mixed_scores, new_order
from pipeline.rerank.outputs import verified
from pipeline.rerank.verify import Reranker, reranked, whole_queries
from pipeline.retrieval import Query
from pipeline.retrieval.rankings import Ranking
from tests.sections import section


def test_scores_are_mixed_as_by_hand():
    # Scaled among the first three: 1, 0.5, 0; the fourth lies below them.
    mixed = mixed_scores([0.9, 0.7, 0.5, 0.4], [0.1, 0.8, 0.6], weight=0.75)
    np.testing.assert_allclose(mixed, [0.325, 0.725, 0.45, -0.0625])
    assert new_order(mixed) == [1, 2, 0, 3]


@pytest.mark.parametrize(("weight", "order"), [(0.0, [0, 1, 2, 3]), (1.0, [1, 2, 0, 3])])
def test_a_weight_of_0_changes_nothing_and_1_leaves_yes_alone(weight, order):
    assert new_order(mixed_scores([0.9, 0.7, 0.5, 0.4], [0.1, 0.8, 0.6], weight)) == order


def test_answers_that_were_not_verified_stay_behind():
    mixed = mixed_scores([0.9, 0.7, 0.7, 0.7], [0.0, 0.0], weight=1.0)
    assert new_order(mixed) == [0, 1, 2, 3]
    assert new_order(mixed_scores([0.5, 0.5, 0.5], [0.2, 0.4], 0.5)) == [1, 0, 2]


def test_a_ranked_list_and_its_subset():
    ranking = Ranking("q", ("a", "b", "c"), (0.9, 0.8, 0.1), ("s", "b"))
    assert verified(ranking, 2) == ["a", "b", "s"]
    found = reranked(ranking, {"a": 0.1, "b": 0.9, "s": 0.95}, top=2, weight=0.9)
    assert found.ranked_ids == ("b", "a", "c") and found.subset_ranked_ids == ("s", "b")
    np.testing.assert_allclose(found.scores, [0.81, 0.19, -0.7])


class Brightness:
    """Says yes as often as the candidate is bright."""

    def __init__(self):
        self.asked = []

    def token_probabilities(self, inputs, tokens):
        self.asked.append([(one.text, one.image.getpixel((0, 0))[0]) for one in inputs])
        yes = np.array([one.candidate.getpixel((0, 0))[0] / 255 for one in inputs], np.float32)
        return np.stack((yes, 1 - yes), axis=1)


def test_pairs_are_asked_query_by_query_in_batches():
    images = InMemoryImages({f"i{value}": Image.new("RGB", (4, 4), (value, 0, 0)) for value in (0, 51, 255)})
    queries = [
        Query("1", "i0", ("brighter", "now"), ()),
        Query("2", "i255", ("darker",), ()),
        Query("3", "i0", ("x",), ()),
    ]
    model = Brightness()
    reranker = Reranker(section(RerankerParams, batch_size=2), model)
    found = reranker.probabilities(queries, [["i51", "i255"], ["i0"], []], images, images)
    assert [one.tolist() for one in found] == [[pytest.approx(0.2), 1.0], [0.0], []]
    assert model.asked == [[("brighter, now", 0), ("brighter, now", 0)], [("darker", 255)]]


def test_a_batch_holds_whole_queries():
    found = list(whole_queries(iter([[1, 2], [3], [4, 5], [6, 7, 8], [9]]), size=3))
    assert found == [[1, 2, 3], [4, 5], [6, 7, 8], [9]]
    assert not list(whole_queries(iter(()), size=3))
