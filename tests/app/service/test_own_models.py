"""Photographs without training, over HTTP: an encoder of one's own, with and without a multimodal LLM beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")
from starlette.testclient import TestClient

from pipeline.app.search.galleries import open_gallery
from pipeline.app.search.searcher import Searcher
from pipeline.app.service.app import build_app
from pipeline.app.service.settings import Settings
from pipeline.config import load_params
from pipeline.query.dual_family import COMPOSITIONS
from tests.app.search.test_own_describer import describer, photos, project_with_profiles  # noqa: F401 - fixtures
from tests.app.service.test_bad_requests import check


@contextmanager
def served(folder: Path, describer: str = "") -> Iterator[TestClient]:  # noqa: F811
    """The application over a folder, in this process."""
    searcher = Searcher(load_params(), open_gallery(folder), describer=describer)
    with TestClient(build_app(searcher, Settings(with_page=False))) as http:
        yield http


def search(http: TestClient, **fields) -> dict:
    image_id = http.get("/v1/images").json()["images"][0]["id"]
    answer = http.post("/v1/search", json={"references": [{"id": image_id}], "text": "a red fox", "top": 3, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_encoder_alone(photos):  # noqa: F811
    with served(photos) as http:
        info = http.get("/v1/info").json()
        found = {method["name"] for method in info["methods"]}
        assert found >= {*COMPOSITIONS, "slerp_roles", "image_text_roles"}
        assert info["default_method"] == "slerp" and info["warning"] == ""
        for method in found:
            assert len(search(http, method=method)["hits"]) == 3
        sent = {"references": [{"id": http.get("/v1/images").json()["images"][0]["id"]}], "text": "a red fox"}
        check(http.post("/v1/search", json={**sent, "method": "cirevl"}), 422, "cirevl")
        check(http.post("/v1/search", json={**sent, "rerank": 2}), 422, "--describer names one")
        check(http.post("/v1/describe", json=sent), 422, "--describer names one")


@pytest.mark.usefixtures("project_with_profiles")
def test_a_describer_beside_it(photos, describer):  # noqa: F811
    with served(photos, str(describer)) as http:
        assert "cirevl" in {method["name"] for method in http.get("/v1/info").json()["methods"]}
        assert search(http, method="cirevl")["descriptions"]
        image_id = http.get("/v1/images").json()["images"][0]["id"]
        sent = {"references": [{"id": image_id}], "text": "a red fox"}
        assert http.post("/v1/describe", json=sent).json()["descriptions"]
