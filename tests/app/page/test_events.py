"""What the demo page answers, without a server."""

from dataclasses import replace
from html import escape
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from pipeline.app.page.events import NO_METHOD, PageEvents, SearchForm, painted_region, with_step
from pipeline.app.page.markup import error_alert
from pipeline.app.search.examples import EXAMPLES
from pipeline.query.registry import methods

SCRIPT = "<script>document.title = 'taken over'</script>"


@pytest.fixture
def events(searcher) -> PageEvents:
    return PageEvents(searcher)


@pytest.fixture
def form(photo) -> SearchForm:
    return SearchForm(
        reference=photo,
        reference_id="",
        text="as a chef",
        negative="",
        concept="",
        method="fusion_diff",
        second_method="diffcomp",
        guidance=1.0,
        control=1.0,
        hypotheses=2,
        top=6,
        rerank=0,
        editor=None,
    )


def test_two_methods_side_by_side(events, form):
    results = events.search(form)
    first, second = results.panels
    assert results.message == "" and first.shown and second.shown
    assert len(first.thumbnails) == len(first.image_ids) == 6
    assert "Fusion-Diff" in first.heading and "sample" in first.heading
    assert "&lt;i&gt;caption" in first.explanation and "<i>" not in first.explanation and first.heat_map is None
    assert second.heat_map is not None and "1 - lambda" in second.explanation


EXPLANATIONS = {
    "fused_only": "nearest to the query vector",
    "stage1_only": "nearest to the sampled targets",
    "cirevl": "Target description",
    "slerp": "nothing more to explain",
}


@pytest.mark.parametrize(("method", "expected"), EXPLANATIONS.items())
def test_what_each_kind_of_method_explains(events, form, method, expected):
    panel = events.search(replace(form, method=method, second_method=NO_METHOD)).panels[0]
    assert expected in panel.explanation and panel.heat_map is None


@pytest.mark.parametrize("second_method", [NO_METHOD, "fusion_diff"])
def test_one_method_leaves_the_second_panel_hidden(events, form, second_method):
    first, second = events.search(replace(form, second_method=second_method)).panels
    assert first.shown and not second.shown


@pytest.mark.parametrize(
    ("parameter", "slider", "rejected"),
    [(0.0, 0.0, False), (0.0, 2.0, False), (1.5, 0.0, True)],
)
def test_an_unmoved_guidance_slider_is_the_parameter(events, form, monkeypatch, parameter, slider, rejected):
    """A negative text raises a parameter of 0 to a guidance that it needs; a slider that was moved to 0 is an error."""
    monkeypatch.setattr(events.searcher.params.retrieve, "guidance_scale", parameter)
    message = events.search(replace(form, negative="a moon", guidance=slider)).message
    assert ("guidance scale above 0" in message) == rejected == bool(message)


def test_every_method_can_be_chosen(events, searcher):
    """As far as this gallery is indexed for it."""
    expected = {name for name, one in methods(searcher.params).items() if one.space in searcher.gallery.spaces}
    assert set(searcher.methods) == expected >= {"cirevl", "description", "fused_only", "image_only"}


def test_the_query_stands_with_its_reference_and_its_address_above_the_results(events, form, searcher):
    image_id = searcher.gallery.ids[0]
    uploaded, picked = (events.search(replace(form, reference_id=one)).query for one in ("", image_id))
    assert "data:image/png" in uploaded and "as a chef" in uploaded and "href" not in uploaded
    address = urlencode({"image": image_id, "text": "as a chef"})
    assert f'href="?{escape(address)}' in picked


def test_a_history_notes_each_search_once(form):
    other = replace(form, text="as a farmer")
    history: list = []
    for entered in (form, form, other, other, form):
        history = with_step(history, entered)
    assert [step.text for step in history] == ["as a chef", "as a farmer", "as a chef"]


def test_examples_are_offered_where_their_references_are(events, searcher, monkeypatch):
    assert events.examples == () and events.example_thumbnails() == []
    ids = [example.reference for example in EXAMPLES]
    monkeypatch.setattr(type(searcher.gallery), "ids", ids)
    assert len(PageEvents(searcher).example_thumbnails()) == len(EXAMPLES) == 6


def test_a_region_changes_only_the_method_that_takes_one(events, form):
    layer = Image.new("RGBA", (480, 480))
    layer.paste((217, 72, 31, 255), (0, 0, 480, 300))
    plain, painted = (events.search(replace(form, editor=editor)).panels for editor in (None, {"layers": [layer]}))
    assert painted[0].image_ids == plain[0].image_ids and "ignored" in painted[0].heading
    assert "ignored" not in painted[1].heading
    assert np.asarray(painted[1].heat_map).tolist() != np.asarray(plain[1].heat_map).tolist()


def test_what_is_painted_becomes_a_region():
    layer = Image.new("RGBA", (100, 50))
    layer.paste((1, 1, 1, 255), (0, 0, 50, 50))
    region = np.asarray(painted_region({"layers": [layer, Image.new("RGBA", (100, 50))]}, (10, 5)))
    assert region.tolist() == [[255] * 5 + [0] * 5] * 5


def test_nothing_painted_is_no_region():
    assert painted_region({"layers": [Image.new("RGBA", (9, 9))]}, (4, 4)) is None
    assert painted_region(None, (4, 4)) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reference": None}, "no reference image yet"),
        ({"reference": "/no/such.png"}, "no such file"),
        ({"text": ""}, "the modification is empty"),
        ({"text": None}, "the modification is empty"),
        ({"text": "x" * 5_000}, "5,000 characters"),
        ({"negative": "x" * 5_000}, "the negative text has 5,000"),
        ({"method": SCRIPT}, "&lt;script&gt;"),
    ],
)
def test_bad_input_is_one_sentence(events, form, changes, reason):
    results = events.search(replace(form, **changes))
    assert reason in results.message and 'role="alert"' in results.message and "<script" not in results.message
    assert not any(panel.shown for panel in results.panels)
    assert events.search(form).message == ""


def test_unusable_reference_files_are_one_sentence(events, form, make_bomb):
    Path("bomb.png").write_bytes(make_bomb(10_000, 8_000))
    assert "10000 x 8000 pixels, at most" in events.search(replace(form, reference="bomb.png")).message
    assert "in no known format" in events.search(replace(form, reference="photos/words.png")).message


def test_an_internal_error_is_shown_in_the_log_alone(caplog):
    try:
        {}["secret detail"]
    except KeyError as error:
        message = error_alert(error)
    assert "secret" not in message and "internal error" in message
    assert "secret detail" in caplog.text


def test_suggestions_come_from_all_over_the_gallery(events):
    thumbnails, image_ids = events.suggest("", 0)
    assert len(thumbnails) == len(image_ids) == 24
    assert set(events.suggest("", 1)[1]).isdisjoint(image_ids)


def test_the_shortest_names_come_first(events, searcher, monkeypatch):
    names = dict(zip(searcher.gallery.ids[:3], ("couple with heart", "red heart", "two hearts"), strict=True))
    monkeypatch.setattr(events, "called", lambda image_id: names.get(image_id, ""))
    assert [names[image_id] for image_id in events.suggest("heart", 0)[1]] == sorted(names.values(), key=len)


def test_suggestions_match_parts_of_names_and_ids(events, searcher, monkeypatch):
    image_id = searcher.gallery.ids[5]
    assert events.suggest(image_id.upper(), 0)[1] == [image_id]
    monkeypatch.setattr(searcher.gallery, "name_of", {image_id: "man wearing turban"}.get)
    monkeypatch.setattr(type(searcher.gallery), "ids", [image_id])
    thumbnails, image_ids = events.suggest("Turban  man", 0)
    assert image_ids == [image_id] and thumbnails[0][1] == f"man wearing turban ({image_id})"
    assert events.suggest("turban woman", 0)[1] == []
    assert events.suggest("nothing is called so", 3) == ([], [])


def test_the_first_answers_are_verified(events, form, monkeypatch):
    asked = []
    search = events.searcher.search
    monkeypatch.setattr(events.searcher, "search", lambda request: asked.append(request) or search(request))
    events.search(form)
    monkeypatch.setattr(events.searcher, "search", lambda request: asked.append(request))
    events.search(replace(form, rerank=5))
    assert [request.rerank for request in asked] == [0, 0, 5]
