"""Several references, judged answers, and requests that are answered together."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.app.search.reference import RequestError
from pipeline.app.search.requests import Request
from pipeline.app.search.steering import Reference, Steering, weighted_sum
from pipeline.query.interface import Controls

WHITE = Image.new("RGB", (8, 8), "white")


def vectors_of(searcher, ids: list[str], space: str = "clip") -> np.ndarray:
    index = searcher._index(searcher._family("slerp").spaces[space], "slerp")
    return index.vectors(ids)


@pytest.fixture
def request_(searcher, reference) -> Request:
    return Request(reference, "as a firefighter", "slerp", 5, exclude=searcher.gallery.ids[0])


@pytest.mark.parametrize("method", ["slerp", "fusion_diff", "diffcomp"])
def test_requests_answered_together_get_what_they_get_alone(searcher, reference, method):
    other = searcher.gallery.image(searcher.gallery.ids[7])
    requests = [Request(reference, "in red", method, 3), Request(other, "in blue", method, 6)]
    requests.append(replace(requests[0], exclude=searcher.gallery.ids[0]))
    for request, together in zip(requests, searcher.search_together(requests), strict=True):
        alone = searcher.search(request)
        assert [hit.image_id for hit in together.hits] == [hit.image_id for hit in alone.hits]
        assert len(together.hits) == request.top
        np.testing.assert_allclose(together.vector, alone.vector, atol=1e-5)


def test_requests_of_two_methods_are_not_answered_together(searcher, request_):
    with pytest.raises(ValueError, match="the same method"):
        searcher.search_together([request_, replace(request_, method="image_only")])


def test_judged_answers_move_the_query_by_rocchio(searcher, request_):
    liked, disliked = searcher.gallery.ids[20:22], searcher.gallery.ids[30:33]
    steering = Steering(liked=tuple(liked), disliked=tuple(disliked), liked_weight=0.5, disliked_weight=0.2)
    base, moved = searcher.search(request_).vector, searcher.search(replace(request_, steering=steering))
    expected = base + 0.5 * vectors_of(searcher, liked).mean(0) - 0.2 * vectors_of(searcher, disliked).mean(0)
    np.testing.assert_allclose(moved.vector, expected / np.linalg.norm(expected), atol=1e-5)
    assert not set(disliked) & {hit.image_id for hit in moved.hits} and len(moved.hits) == 5


def test_references_count_by_their_weights(searcher, request_):
    ids = searcher.gallery.ids
    more, less = (searcher.gallery.image(name) for name in (ids[5], ids[9]))
    steering = Steering((Reference(more, 2.0, ids[5]), Reference(less, -0.5, ids[9])))
    both = [searcher.search(replace(request_, image=image, exclude=None)).vector for image in (request_.image, more)]
    expected = both[0] + 2 * both[1] - 0.5 * vectors_of(searcher, [ids[9]])[0]
    answer = searcher.search(replace(request_, steering=steering))
    np.testing.assert_allclose(answer.vector, expected / np.linalg.norm(expected), atol=2e-3)
    assert not {ids[0], ids[5], ids[9]} & {hit.image_id for hit in answer.hits}


def test_hypotheses_are_moved_one_by_one(searcher, request_):
    steering = Steering(liked=(searcher.gallery.ids[3],))
    request = replace(request_, method="fusion_diff", steering=steering, controls=Controls(hypotheses=3))
    vectors = searcher.search(request).vector
    assert vectors.shape[0] == 3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)


def test_an_unknown_judged_answer_is_named(searcher, request_):
    with pytest.raises(RequestError, match="disliked: 'nothing' is no image of this gallery"):
        searcher.search(replace(request_, steering=Steering(disliked=("nothing",))))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"references": (Reference(WHITE, 0.0),)}, "weight: 0.0"),
        ({"references": (Reference(WHITE, float("nan")),)}, "weight: nan"),
        ({"references": (Reference(WHITE, -11.0),)}, "weight: -11.0"),
        ({"references": (Reference(WHITE, 1.0),) * 8}, "at most 8 are taken, there are 9"),
        ({"liked": ("a",) * 101}, "liked: at most 100"),
        ({"liked": ("a",), "disliked": ("a", "b")}, "'a' is both liked and disliked"),
        ({"liked_weight": -0.1}, "liked_weight: -0.1"),
    ],
)
def test_what_is_out_of_range_is_rejected(fields, message):
    with pytest.raises(RequestError, match=message):
        Steering(**fields)


def test_a_region_belongs_to_one_reference():
    with pytest.raises(RequestError, match="region: it marks a place in one reference"):
        Request(
            WHITE,
            "red",
            controls=Controls(region=Image.new("L", (8, 8))),
            steering=Steering((Reference(WHITE, 1.0),)),
        )


def test_weights_that_cancel_each_other_are_rejected():
    with pytest.raises(RequestError, match="cancel each other"):
        weighted_sum([np.array([1.0, 0.0]), np.array([1.0, 0.0])], [1.0, -1.0])
