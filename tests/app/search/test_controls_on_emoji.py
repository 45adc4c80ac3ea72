"""A negative text and a region move the ranking the right way on Emoji-CIR.

With the shipped CLIP over the fixture's images, and, where `dvc repro` has been run, with the
trained models on the validation split.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.app.search.galleries import BenchmarkGallery
from pipeline.app.search.requests import Request
from pipeline.app.search.searcher import Searcher
from pipeline.config import load_params
from pipeline.query.interface import Controls
from pipeline.retrieval import Query, read_queries

ROOT = Path(__file__).parents[3]


def pairs_of(queries: list[Query], count: int) -> list[tuple[Query, Query]]:
    """About `count` queries, each with another one of its category and other targets."""
    found = []
    for query in queries[:: max(1, len(queries) // count)]:
        own = {*query.target_ids, query.reference_id}
        others = (
            one
            for one in queries
            if one.category == query.category and one.text != query.text and not own & set(one.target_ids)
        )
        other = next(others, None)
        found += [(query, other)] if other else []
    return found


def mean_rank(searcher: Searcher, request: Request, ids: tuple[str, ...]) -> float:
    """The mean rank of `ids` in the whole gallery; the best rank is 1."""
    answer = searcher.search(request)
    index = searcher.gallery._indexes[answer.space]
    ranked = {name: rank for rank, name in enumerate(index.rank(answer.vector, index.ids)[0], start=1)}
    return float(np.mean([ranked[name] for name in ids if name in ranked]))


def ranks_of_negated_targets(
    searcher: Searcher, queries: list[Query], method: str, count: int, weight: float = 0.2
) -> np.ndarray:
    """[pairs, 2]: the mean rank of the negative text's own targets, without and with the negative text."""
    rows = []
    for query, other in pairs_of(queries, count):
        request = Request(searcher.gallery.image(query.reference_id), query.text, method, 1, query.shared_concept)
        negated = dataclasses.replace(request, controls=Controls(negative=other.text, negative_weight=weight))
        rows.append([mean_rank(searcher, one, other.target_ids) for one in (request, negated)])
    return np.array(rows)


@pytest.fixture
def small(in_project, benchmark_gallery, shared_searcher) -> tuple[Searcher, list[Query]]:
    """The fixture's benchmark, with the ids of the photos that its index was made from."""
    names = {Path(name).stem: name for name in shared_searcher.gallery.ids}
    queries = [
        dataclasses.replace(
            query,
            reference_id=names[query.reference_id.replace("/", "_")],
            target_ids=tuple(names[name.replace("/", "_")] for name in query.target_ids),
        )
        for query in read_queries("data/benchmarks/emoji_cir/queries")
    ]
    return shared_searcher, queries


@pytest.mark.parametrize("method", ["slerp", "diffcomp", "fused_only"])
def test_negated_targets_fall(small, method):
    """A little with the default weight, and further with twice that weight."""
    falls = []
    for weight in (0.2, 0.4):
        ranks = ranks_of_negated_targets(*small, method, 20, weight)
        assert len(ranks) >= 10
        falls.append(ranks[:, 1].mean() - ranks[:, 0].mean())
    assert 0 < falls[0] < falls[1] and falls[1] > 1


def test_more_weight_turns_further_away(small):
    searcher, queries = small
    query, other = pairs_of(queries, 20)[0]
    request = Request(searcher.gallery.image(query.reference_id), query.text, "slerp", 1)
    negative, wanted = (
        searcher.search(Request(request.image, text, "text_only", 1)).vector for text in (other.text, query.text)
    )
    beyond = (negative - wanted) / np.linalg.norm(negative - wanted)
    controls = [Controls(negative=other.text, negative_weight=weight) for weight in (0.0, 0.1, 0.3, 0.9)]
    cosines = [float(searcher.search(dataclasses.replace(request, controls=one)).vector @ beyond) for one in controls]
    assert cosines == sorted(cosines, reverse=True) and cosines[3] < -0.9 < cosines[2]


@pytest.fixture(scope="module")
def trained():
    """The project's own models and validation gallery."""
    weights = ("models/control/model.safetensors", "models/diffcomp/diffcomp/model.safetensors")
    needed = (*weights, "data/index/emoji_cir_val/fused/manifest.json")
    if missing := [name for name in needed if not (ROOT / name).is_file()]:
        pytest.skip(f"`dvc repro` has not been run here: there is no {missing[0]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        searcher = Searcher(load_params(), BenchmarkGallery("emoji_cir_val"))
        if searcher.params.profile != "offline":
            pytest.skip("the models are another profile's")
        yield searcher, read_queries("data/benchmarks/emoji_cir_val/queries")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fusion_diff", "diffcomp"])
def test_negated_targets_fall_with_the_trained_models(trained, method):
    ranks = ranks_of_negated_targets(*trained, method, 24)
    assert ranks[:, 1].mean() > ranks[:, 0].mean()


@pytest.mark.slow
def test_a_masked_reference_weighs_less_in_the_trained_diffcomp(trained):
    """With all of the reference masked, its own neighbours fall and the text decides."""
    searcher, queries = trained
    rows = []
    for query in queries[::20]:
        image = searcher.gallery.image(query.reference_id)
        request = Request(image, query.text, "diffcomp", 1)
        masked = dataclasses.replace(request, controls=Controls(region=Image.new("L", image.size, 255)))
        rows.append([mean_rank(searcher, one, (query.reference_id,)) for one in (request, masked)])
    plain, masked = np.array(rows).T
    assert masked.mean() > plain.mean() + 10
