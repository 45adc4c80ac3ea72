"""One answer in the terminal, as JSON and as a page."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.app.search.requests import Request
from pipeline.app.search.results import as_html, as_json, as_table, write_html
from pipeline.query.interface import Controls

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def found(searcher, reference):
    """A request whose texts try to be markup, and its answer."""
    request = Request(reference, f"a [red] {SCRIPT}", "fusion_diff", 3, controls=Controls(negative=SCRIPT))
    return request, searcher.search(request)


def test_the_table_shows_texts_as_they_are(found):
    request, answer = found
    console = Console(width=200, file=io.StringIO())
    console.print(as_table(request, answer))
    table = console.file.getvalue()
    assert "[red]" in table and answer.hits[2].image_id in table and "sample" in table


def test_names_stand_beside_ids(found, searcher):
    request, answer = found
    hits = [replace(hit, name=f"<b>name {rank}") for rank, hit in enumerate(answer.hits)]
    named = replace(answer, hits=hits)
    console = Console(width=200, file=io.StringIO())
    console.print(as_table(request, named))
    assert f"<b>name 2 ({hits[2].image_id})" in console.file.getvalue()
    assert [hit["name"] for hit in as_json(request, named)["hits"]] == [hit.name for hit in hits]
    page = as_html([(request, named)], searcher.gallery)
    assert "&lt;b&gt;name 2" in page and hits[2].image_id in page and "<b>" not in page


def test_json_has_every_hit(found):
    request, answer = found
    stored = json.loads(json.dumps(as_json(request, answer)))
    assert [(hit["rank"], hit["id"]) for hit in stored["hits"]] == [
        (rank, hit.image_id) for rank, hit in enumerate(answer.hits, start=1)
    ]
    assert stored["text"] == request.text and stored["negative"] == SCRIPT


def test_the_page_escapes_texts_and_needs_no_network(found, searcher, tmp_path):
    page = as_html([found], searcher.gallery)
    assert "<script" not in page and page.count("&lt;script&gt;") == 2
    assert page.count("data:image/png;base64,") == 4 and "http" not in page.replace("http-equiv", "")
    imagining = as_html([found], searcher.gallery, lambda answer: [found[0].image] * len(answer.vector))
    assert imagining.count("data:image/png;base64,") == 4 + len(found[1].vector)
    assert imagining.count('alt="what the model imagines"') == len(found[1].vector)
    write_html(tmp_path / "page.html", [found], searcher.gallery)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
