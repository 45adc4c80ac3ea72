"""The server used through HTTP, as its documentation shows it."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from pipeline.app.search.requests import Request
from tests.app.service.conftest import serving


def post(http, path: str, body: dict) -> dict:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids_of(answer: dict) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


@pytest.fixture
def ids(shared_searcher) -> list[str]:
    return shared_searcher.gallery.ids


@pytest.mark.parametrize("method", ["slerp", "fusion_diff", "diffcomp"])
def test_a_search_answers_what_the_searcher_answers(http, searcher, ids, method):
    sent = {"references": [{"id": ids[3]}], "text": "in red", "method": method, "top": 7}
    answer = post(http, "/v1/search", sent)
    expected = searcher.search(Request(searcher.gallery.image(ids[3]), "in red", method, 7, exclude=ids[3]))
    assert ids_of(answer) == [hit.image_id for hit in expected.hits]
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, 8))
    assert {"id", "name", "score", "link", "rank"} == set(answer["hits"][0])
    assert answer["descriptions"] == expected.descriptions and answer["space"] == expected.space


def test_a_text_alone_is_searched_by_text(http, ids):
    alone = post(http, "/v1/search", {"text": "a red heart", "top": 5})
    with_any = {"references": [{"id": ids[3]}], "text": "a red heart", "top": 6, "method": "text_only"}
    assert alone["method"] == "text_only" and len(alone["hits"]) == 5
    without = [image_id for image_id in ids_of(alone) if image_id != ids[3]]
    assert ids_of(post(http, "/v1/search", with_any))[: len(without)] == without


def test_an_image_alone_is_searched_by_image(http, ids):
    alone = post(http, "/v1/search", {"references": [{"id": ids[3]}], "top": 5})
    with_text = {"references": [{"id": ids[3]}], "text": "in red", "method": "image_only", "top": 5}
    assert alone["method"] == "image_only" and alone["hits"] == post(http, "/v1/search", with_text)["hits"]


def test_an_upload_and_base64_are_the_same_reference(http, searcher, ids, photo):
    content = Path(photo).read_bytes()
    rest = {"text": "in blue", "method": "slerp", "top": 5}
    encoded = base64.encodebytes(content).decode()  # with line ends, as programs write it
    by_text = post(http, "/v1/search", {"references": [{"image": encoded}], **rest})
    by_file = http.post(
        "/v1/search/upload", files={"image": ("../../a.png", content)}, data={"search": json.dumps(rest)}
    )
    assert by_file.status_code == 200, by_file.text
    assert by_file.json()["hits"] == by_text["hits"]


def test_links_lead_to_the_images(http, searcher, ids):
    hit = post(http, "/v1/search", {"references": [{"id": ids[0]}], "text": "red", "method": "slerp"})["hits"][0]
    answer = http.get(hit["link"], params={"side": 32})
    assert answer.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert max(image.size) == 32
    listed = http.get("/v1/images", params={"contains": hit["id"], "limit": 5}).json()
    assert hit["id"] in [one["id"] for one in listed["images"]]
    pages = [http.get("/v1/images", params={"offset": start, "limit": 40}).json()["images"] for start in (0, 40)]
    assert [one["id"] for page in pages for one in page] == ids[:80]


def test_judged_answers_and_several_references_change_the_answer(http, ids):
    base = {"references": [{"id": ids[0]}], "text": "as a chef", "method": "slerp", "top": 20}
    plain = ids_of(post(http, "/v1/search", base))
    judged = ids_of(post(http, "/v1/search", {**base, "liked": [plain[5]], "disliked": plain[:2]}))
    assert not set(plain[:2]) & set(judged) and judged.index(plain[5]) < plain.index(plain[5])
    mixed = {**base, "references": [{"id": ids[9], "weight": -0.5}, {"id": ids[0]}, {"id": ids[5], "weight": 2}]}
    found = ids_of(post(http, "/v1/search", mixed))
    assert found != plain and not {ids[0], ids[5], ids[9]} & set(found)


def test_regions_negatives_and_masks_reach_the_method(http, searcher, ids):
    base = {"references": [{"id": ids[0]}], "text": "in red", "method": "diffcomp", "top": 20}
    mask = Image.new("L", searcher.gallery.image(ids[0]).size, 0)
    mask.paste(255, (0, 0, mask.width // 2, mask.height))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    plain = post(http, "/v1/search", base)["hits"]
    boxed = post(http, "/v1/search", {**base, "region": [0, 0, 0.5, 1]})["hits"]
    masked = post(http, "/v1/search", {**base, "mask": base64.b64encode(buffer.getvalue()).decode()})["hits"]
    negated = post(http, "/v1/search", {**base, "negative": "a chef", "negative_weight": 0.5})["hits"]
    assert boxed == masked != plain != negated


def test_a_batch_answers_in_order(http, ids):
    searches = [
        {"references": [{"id": ids[number]}], "text": "in red", "method": method, "top": 3}
        for number, method in enumerate(["slerp", "diffcomp", "slerp"])
    ]
    answers = post(http, "/v1/search/batch", {"searches": searches})["answers"]
    alone = [post(http, "/v1/search", one) for one in searches]
    assert list(map(ids_of, answers)) == list(map(ids_of, alone))
    assert [one["method"] for one in answers] == ["slerp", "diffcomp", "slerp"]


def test_explanations(http, searcher, ids):
    kept = post(http, "/v1/explain", {"references": [{"id": ids[0]}], "text": "in red", "method": "diffcomp"})
    assert np.shape(kept["kept"])[0] > 1 and 0 <= np.min(kept["kept"]) <= np.max(kept["kept"]) <= 1
    assert Image.open(io.BytesIO(base64.b64decode(kept["heat_map"]))).format == "PNG"
    said = post(http, "/v1/explain", {"references": [{"id": ids[0]}], "text": "in red", "method": "fusion_diff"})
    assert said["descriptions"] and said["captions"] and said["kept"] is None
    described = post(http, "/v1/describe", {"references": [{"id": ids[0]}], "text": "in red"})
    assert described["descriptions"] == said["descriptions"]


def test_the_server_describes_itself(http, ids):
    info = http.get("/v1/info").json()
    assert info["images"] == len(ids) and info["default_method"] == "fusion_diff" and "emoji" in info["warning"]
    assert {"slerp", "diffcomp"} < {method["name"] for method in info["methods"]}
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/search", "/v1/search/upload", "/v1/search/batch", "/v1/explain", "/health"} < set(paths)
    names = {operation["operationId"] for path in paths.values() for operation in path.values()}
    assert {"search", "search_by_upload", "search_batch", "add_images", "remove_image", "explain"} < names
    assert http.get("/health").json() == {"status": "ok"}
    assert "gradio" in http.get("/", follow_redirects=True).text


def test_metrics_count_what_was_asked(http, ids):
    def counted() -> float:
        lines = http.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith('cir_requests_total{route="/v1/search",status="200"}')]
        return float(found[0].split()[-1]) if found else 0.0

    before = counted()
    post(http, "/v1/search", {"references": [{"id": ids[0]}], "text": "red", "method": "slerp"})
    assert counted() == before + 1
    text = http.get("/metrics").text
    assert f"cir_images {len(ids)}.0" in text and 'cir_search_seconds_count{method="slerp",part="search"}' in text


def test_twenty_searches_at_once_are_all_answered(http, ids):
    def ask(number: int) -> list[str]:
        sent = {"references": [{"id": ids[number]}], "text": f"number {number}", "method": "fusion_diff", "top": 4}
        return ids_of(post(http, "/v1/search", sent))

    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(ask, range(20)))
    assert together == [ask(number) for number in range(20)]


def test_a_key_is_asked_for_and_a_named_page_may_call(project, ids):
    options = ("--no-page", "--allow-origin", "https://shop.example")
    with (
        serving(project, *options, CIR_API_KEY="secret") as url,
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        assert http.get("/health").status_code == 200
        for path in ("/v1/info", "/metrics", "/docs", "/openapi.json"):
            assert http.get(path).status_code == 401
        assert http.get("/v1/info").json()["error"]["code"] == "unauthorised"
        assert http.get("/v1/info", headers={"Authorization": "Bearer wrong"}).status_code == 401
        for key in ({"Authorization": "Bearer secret"}, {"X-API-Key": "secret"}):
            assert http.get("/v1/info", headers=key).status_code == 200
        assert http.get("/v1/info", auth=("anyone", "secret")).status_code == 200
        page = {"X-API-Key": "secret", "Origin": "https://shop.example"}
        allowed = http.get("/v1/info", headers=page)
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        foreign = http.get("/v1/info", headers={**page, "Origin": "https://other.example"})
        assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers
        assert http.get("/demo").status_code == 401
