"""The searcher: every method over one gallery, for one visitor and for many."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.app.search.galleries import FolderGallery
from pipeline.app.search.library import Library
from pipeline.app.search.requests import Request
from pipeline.app.search.searcher import Searcher
from pipeline.artifacts import ArtifactError
from pipeline.config import ParameterError, load_params
from pipeline.encoders.image_source import InMemoryImages
from pipeline.query import registry
from pipeline.query.driver import answer_all
from pipeline.query.interface import ControlError, Controls
from tests.app.conftest import small_params

METHODS = list(registry.methods(small_params()))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_and_repeats_itself(searcher, reference, method):
    request = Request(reference, "as a firefighter", method, 5, exclude=searcher.gallery.ids[0])
    first, second = searcher.search(request), searcher.search(request)
    assert first.hits == second.hits and len(first.hits) == 5
    assert searcher.gallery.ids[0] not in [hit.image_id for hit in first.hits]
    assert [hit.score for hit in first.hits] == sorted((hit.score for hit in first.hits), reverse=True)
    assert {"search"} < set(first.seconds) <= {"describe", "sample", "search"}
    negated = searcher.search(replace(request, controls=Controls(negative="a chef")))
    assert not np.allclose(negated.vector, first.vector, atol=1e-4) and np.isfinite(negated.vector).all()


def test_the_reference_itself_is_the_best_answer_for_image_only(searcher):
    for name in searcher.gallery.ids[::20]:
        best = searcher.search(Request(searcher.gallery.image(name), "anything", "image_only", 1)).hits[0]
        assert best.score == pytest.approx(1, abs=1e-3)


def test_answers_equal_those_of_the_retrieve_stage(searcher, reference):
    """The command's path and the pipeline's give one query the same vectors."""
    request = Request(reference, "as a firefighter", "fusion_diff")
    families = registry.load_families(searcher.models)
    found = answer_all(families, [request.query()], InMemoryImages({"reference": reference}))
    assert set(found) == set(METHODS)
    for method in METHODS:
        answer = searcher.search(replace(request, method=method))
        np.testing.assert_array_equal(answer.vector, found[method].vectors[0])


def test_hypotheses_and_scales_reach_the_sampler(searcher, reference):
    request = Request(reference, "as a firefighter", "fusion_diff")
    three = searcher.search(replace(request, controls=Controls(hypotheses=3)))
    assert three.vector.shape[0] == 3 and len(three.descriptions) == 1
    base = searcher.search(request).vector
    for controls in (Controls(guidance_scale=4.0), Controls(control_scale=0.0)):
        assert not np.allclose(searcher.search(replace(request, controls=controls)).vector, base, atol=1e-4)


def test_controls_that_a_method_does_not_have(searcher, reference):
    region = Image.new("L", reference.size, 255)
    for method in ("fusion_diff", "slerp"):
        with pytest.raises(ControlError, match=f"region: {method} takes none"):
            searcher.search(Request(reference, "x", method, controls=Controls(region=region)))
    with pytest.raises(ControlError, match="needs a guidance scale above 0"):
        searcher.search(Request(reference, "x", "fusion_diff", controls=Controls(negative="y", guidance_scale=0.0)))
    with pytest.raises(ParameterError, match="'magic' is not one of "):
        searcher.search(Request(reference, "x", "magic"))


def test_a_region_over_everything_answers_alike_for_every_reference(searcher):
    plain, masked = [], []
    for image in map(searcher.gallery.image, searcher.gallery.ids[:2]):
        whole = Controls(region=Image.new("L", image.size, 255))
        plain.append(searcher.search(Request(image, "a moon", "diffcomp")).vector)
        masked.append(searcher.search(Request(image, "a moon", "diffcomp", controls=whole)).vector)
    np.testing.assert_allclose(masked[0], masked[1], atol=1e-5)
    assert np.abs(plain[0] - plain[1]).max() > 1e-2


def test_what_explains_an_answer(searcher, reference):
    kept = searcher.explain(Request(reference, "a moon", "diffcomp"))
    assert kept.shape == (8, 8) and 0 <= kept.min() < kept.max() <= 1
    captions = searcher.nearest_captions(searcher.search(Request(reference, "a moon", "fused_only")), 3)
    assert len(captions) == 3 and captions[0].cosine >= captions[1].cosine >= captions[2].cosine


def test_an_index_made_by_another_model_is_rejected(searcher, reference, tmp_path):
    shutil.copytree("photos", tmp_path, dirs_exist_ok=True)
    library = Library.open(tmp_path)
    other = library.spaces["clip"]
    for _, ids, vectors in library.vectors("clip"):
        library.store_vectors(library.store_for("diffcomp", other), [one.hash for one in library.entries(ids)], vectors)
    library.commit(spaces={"diffcomp": other})
    other = Searcher(load_params(), FolderGallery(tmp_path / ".cir"), searcher.models)
    with pytest.raises(ArtifactError, match="its images were embedded with diffcomp = None"):
        other.search(Request(reference, "x", "diffcomp"))


def test_threads_are_all_answered(searcher, reference):
    requests = [Request(reference, f"number {number}", "diffcomp") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(searcher.search, requests))
    assert [answer.hits for answer in together] == [searcher.search(request).hits for request in requests]
