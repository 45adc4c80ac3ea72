"""Requests, the searcher that answers them, and what is shown of an answer."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pipeline.app.search import results as show
from pipeline.app.search.requests import MAX_TEXT, Request, RequestError, painted, read_region
from pipeline.app.search.searcher import Searcher
from pipeline.artifacts import ArtifactError
from pipeline.config import ParameterError, load_params
from pipeline.encoders.image_source import InMemoryImages
from pipeline.query import cirevl, dual, fusion_diff, registry
from pipeline.query.driver import answer_all
from pipeline.query.interface import ControlError, Controls

SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": None}, "no reference image"),
        ({"text": "  "}, "the modification is empty"),
        ({"text": "x" * 5_000}, "the modification has 5,000 characters, at most 1,000"),
        ({"concept": "x" * (MAX_TEXT + 1)}, "the shared concept has 1,001"),
        ({"top": 0}, "top: 0 is not between 1 and 200"),
    ],
)
def test_what_cannot_be_asked(changes, reason):
    given = {"image": Image.new("RGB", (4, 4)), "text": "red"} | changes
    with pytest.raises(RequestError, match=reason):
        Request(**given)


@pytest.mark.parametrize(
    ("controls", "reason"),
    [
        ({"guidance_scale": float("nan")}, "guidance_scale: nan"),
        ({"control_scale": -1.0}, "control_scale: -1.0 is not between 0 and 20"),
        ({"hypotheses": 0}, "hypotheses: 0"),
        ({"negative_weight": 2.0}, "negative_weight: 2.0"),
    ],
)
def test_controls_out_of_range(controls, reason):
    with pytest.raises(ControlError, match=reason):
        Controls(**controls)


def test_a_region_as_shares_and_as_a_mask(tmp_path):
    region = np.asarray(read_region("0.5,0,1,0.25", (40, 20)))
    assert region.shape == (20, 40) and set(region[:5, 20:].flat) == {255} and region.sum() == 255 * 5 * 20
    Image.fromarray(region).save(tmp_path / "mask.png")
    twice = np.asarray(read_region(str(tmp_path / "mask.png"), (80, 40)))
    np.testing.assert_array_equal(twice, np.kron(region, np.ones((2, 2), np.uint8)))
    for wrong, reason in (
        ("1,2,3", "neither"),
        ("0,0,2,1", "needs 0 <="),
        ("0.5,0,0.5,1", "needs 0 <="),
        ("no.png", "neither"),
        ("a,b,c,d", "neither"),
    ):
        with pytest.raises(RequestError, match=reason):
            read_region(wrong, (40, 20))
    with pytest.raises(RequestError, match="40 x 20, is not the reference's, 20 x 20"):
        read_region(str(tmp_path / "mask.png"), (20, 20))
    with pytest.raises(RequestError, match="the region is empty"):
        painted(np.zeros((4, 4), bool))


METHODS = [*(method.name for method in fusion_diff.METHODS), *dual.COMPOSITIONS, cirevl.NAME, "diffcomp"]


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
    with pytest.raises(ParameterError, match="'magic' is not one of fused_only"):
        searcher.search(Request(reference, "x", "magic"))


def test_a_region_over_everything_answers_alike_for_every_reference(searcher):
    plain, masked = [], []
    for picture in (searcher.gallery.image(name) for name in searcher.gallery.ids[:2]):
        whole = Controls(region=Image.new("L", picture.size, 255))
        plain.append(searcher.search(Request(picture, "a moon", "diffcomp")).vector)
        masked.append(searcher.search(Request(picture, "a moon", "diffcomp", controls=whole)).vector)
    np.testing.assert_allclose(masked[0], masked[1], atol=1e-5)
    assert np.abs(plain[0] - plain[1]).max() > 1e-2


def test_why_views(searcher, reference):
    kept = searcher.explain(Request(reference, "a moon", "diffcomp"))
    assert kept.shape == (8, 8) and ((kept > 0) & (kept < 1)).all()
    captions = searcher.nearest_captions(searcher.search(Request(reference, "a moon", "fused_only")), 3)
    assert len(captions) == 3 and captions[0].cosine >= captions[1].cosine >= captions[2].cosine


def test_an_index_made_by_another_model_is_refused(searcher, reference, tmp_path):
    import shutil

    from pipeline.app.search.galleries import FolderGallery

    shutil.copytree("photos/.cir", tmp_path / ".cir")
    shutil.rmtree(tmp_path / ".cir/index/diffcomp")
    shutil.copytree(tmp_path / ".cir/index/clip", tmp_path / ".cir/index/diffcomp")
    other = Searcher(load_params(), FolderGallery(tmp_path / ".cir"), searcher.models)
    with pytest.raises(ArtifactError, match="its gallery has diffcomp = None"):
        other.search(Request(reference, "x", "diffcomp"))


def test_threads_are_all_answered(searcher, reference):
    requests = [Request(reference, f"number {number}", "diffcomp") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(searcher.search, requests))
    assert [answer.hits for answer in together] == [searcher.search(request).hits for request in requests]


def test_table_json_and_page(searcher, reference):
    request = Request(reference, f"a [red] {SCRIPT}", "fusion_diff", 3, controls=Controls(negative=SCRIPT))
    answer = searcher.search(request)
    console = Console(record=True, width=200, file=open("/dev/null", "w"))
    console.print(show.as_table(request, answer))
    table = console.export_text()
    assert "[red]" in table and answer.hits[2].image_id in table and "sample" in table
    stored = json.loads(json.dumps(show.as_json(request, answer)))
    assert [hit["rank"] for hit in stored["hits"]] == [1, 2, 3] and stored["hits"][0]["id"] == answer.hits[0].image_id
    page = show.as_html([(request, answer)], searcher.gallery)
    assert "<script" not in page and page.count("&lt;script&gt;") == 2
    assert page.count("data:image/png;base64,") == 4 and "http" not in page.replace("http-equiv", "")
