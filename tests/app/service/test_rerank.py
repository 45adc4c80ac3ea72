"""`POST /v1/search` with `rerank`. The model is the small f_M, which says something, if nothing that it was taught."""

from contextlib import contextmanager

import httpx
import pytest
import yaml

from tests.app.service.conftest import serving


@pytest.fixture(scope="module")
def server_of(project, tmp_path_factory):
    """A model's path -> a server that verifies with it, by P(yes) alone."""

    @contextmanager
    def served(model: str):
        folder = tmp_path_factory.mktemp("verifying")
        for path in project.iterdir():
            if path.name != "params.yaml":
                (folder / path.name).symlink_to(path)
        values = yaml.safe_load((project / "params.yaml").read_text())
        values["reranker"]["path"], values["rerank"]["weight"] = model, 1.0
        (folder / "params.yaml").write_text(yaml.safe_dump(values))
        with (
            serving(folder, "--no-page") as url,
            httpx.Client(base_url=url, trust_env=False, timeout=60) as client,
        ):
            yield client

    return served


@pytest.fixture(scope="module")
def verifying(server_of):
    with server_of("models/backbones/mllm") as client:
        yield client


def test_the_first_answers_are_verified_and_the_others_stay(verifying, shared_searcher):
    sent = {"references": [{"id": shared_searcher.gallery.ids[3]}], "text": "in red", "method": "slerp", "top": 6}
    before = verifying.post("/v1/search", json=sent).json()
    answer = verifying.post("/v1/search", json=sent | {"rerank": 3})
    assert answer.status_code == 200, answer.text
    first, after = ([hit["id"] for hit in found["hits"]] for found in (before, answer.json()))
    assert set(after[:3]) == set(first[:3]) and after[3:] == first[3:]
    scores = [hit["score"] for hit in answer.json()["hits"]]
    assert scores == sorted(scores, reverse=True) and all(0 < score < 1 for score in scores[:3]), "P(yes)"
    assert scores[3:] == [0.0] * 3, "these were not verified"


def test_more_than_there_are_is_one_sentence(verifying, shared_searcher):
    ids = shared_searcher.gallery.ids
    sent = {"references": [{"id": ids[3]}], "text": "in red", "method": "slerp", "rerank": len(ids) + 1}
    answer = verifying.post("/v1/search", json=sent)
    assert answer.status_code == 422 and f"rerank: {len(ids) + 1} is more than the {len(ids)} images" in answer.text


def test_a_model_that_is_missing_is_one_sentence(server_of, shared_searcher):
    sent = {"references": [{"id": shared_searcher.gallery.ids[3]}], "text": "in red", "method": "slerp", "rerank": 2}
    with server_of("models/backbones/unknown") as client:
        answer = client.post("/v1/search", json=sent)
    assert 400 <= answer.status_code < 600 and "models/backbones/unknown is not there" in answer.text
