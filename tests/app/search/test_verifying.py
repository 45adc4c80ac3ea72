"""A search whose first answers are verified."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import Searcher as Opened
from pipeline.app.search.own_encoder import OwnEncoder
from pipeline.app.search.reference import RequestError
from pipeline.app.search.requests import Request
from pipeline.app.search.verifying import can_verify, check_reranked
from pipeline.config import ParameterError


class SaysYesToTheLast:
    """P(yes) rises with the place of an answer."""

    def __init__(self):
        self.asked = []

    def token_probabilities(self, inputs, tokens):
        self.asked += inputs
        yes = np.linspace(0.1, 0.9, len(inputs), dtype=np.float32)
        return np.stack((yes, 1 - yes), axis=1)


@pytest.fixture
def verifier(searcher, monkeypatch):
    """The searcher's reranker, and P(yes) alone."""
    found, params = SaysYesToTheLast(), searcher.models.params
    monkeypatch.setitem(vars(searcher.models), "verifier", found)
    monkeypatch.setattr(params, "reranker", replace(params.reranker, path=params.embedder.path))
    monkeypatch.setattr(params, "rerank", replace(params.rerank, weight=1.0))
    return found


def test_verified_answers_are_in_the_order_of_yes(searcher, reference, verifier):
    request = Request(reference, "as a firefighter", "slerp", 6)
    before = searcher.search(request)
    after = searcher.search(replace(request, rerank=4))
    ids = [hit.image_id for hit in before.hits]
    assert [hit.image_id for hit in after.hits] == [*ids[3::-1], *ids[4:]]
    assert "rerank" in after.seconds and "rerank" not in before.seconds
    assert [one.text for one in verifier.asked] == ["as a firefighter"] * 4
    few = searcher.search(replace(request, top=2, rerank=4))
    assert few.hits == after.hits[:2], "more are verified than are shown"


def test_what_cannot_be_verified_is_one_sentence(searcher, reference, verifier):
    request = Request(reference, "as a firefighter", "slerp", 5)
    images = len(searcher.gallery.ids)
    with pytest.raises(RequestError, match=f"^rerank: {images + 1} is more than the {images} images of "):
        searcher.search(replace(request, rerank=images + 1))
    for wrong in (-1, 201):
        with pytest.raises(RequestError, match=f"^rerank: {wrong} is not between 0 and 200"):
            replace(request, rerank=wrong)
    own = OwnEncoder("ViT-L-14-quickgelu", "openai").into(searcher.params)
    with pytest.raises(ParameterError, match=r"^rerank: no multimodal LLM verifies answers here; --describer names"):
        check_reranked(replace(request, rerank=2), searcher.gallery, own)
    untrained = replace(searcher.params, reranker=replace(own.reranker, path="models/backbones/unknown"))
    with pytest.raises(ParameterError, match=r"^reranker.path: models/backbones/unknown is not there; `python -m "):
        check_reranked(replace(request, rerank=2), searcher.gallery, untrained)


def test_python_verifies_as_a_search_does(in_project, searcher, verifier):
    opened = Opened.open("photos", threads=1)
    opened._inner = searcher
    path = next(Path("photos").rglob("*.png"))
    before = [hit.id for hit in opened.search(path, "as a firefighter", "slerp", top=6)]
    after = opened.search(path, "as a firefighter", "slerp", top=6, rerank=4)
    assert [hit.id for hit in after] == [*before[3::-1], *before[4:]]
    assert after[0].score == pytest.approx(0.9) and after[-1].score == 0.0
    with pytest.raises(RequestError, match="^rerank: 201 is not between 0 and 200"):
        opened.search(path, "as a firefighter", "slerp", rerank=201)


def test_a_page_offers_it_where_a_model_is_there(searcher, verifier):
    assert can_verify(searcher.params)
    missing = replace(searcher.params, reranker=replace(searcher.params.reranker, path="models/backbones/none"))
    assert not can_verify(missing)
    assert not can_verify(replace(missing, reranker=replace(missing.reranker, path="")))
