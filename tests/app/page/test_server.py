"""The demo page over HTTP: many visitors, and requests that no page would send."""

import json
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from pipeline.app.page.events import NO_METHOD
from tests.app.page.conftest import on_a_free_port

gradio_client = pytest.importorskip("gradio_client", reason="the extra `demo` is not installed")


def connect(url: str, folder: Path | bool = False):
    """A visitor's client. Downloads the images of the results into `folder`, if one is given."""
    return gradio_client.Client(url, verbose=False, download_files=folder, httpx_kwargs={"timeout": 300})


def send_search(client, photo: str, text: str) -> tuple:
    """Press the button with both methods. Returns the values of the page's outputs."""
    reference, scales, counts = gradio_client.handle_file(photo), (1.0, 1.0), (2, 6, 0)
    return client.predict(
        reference, text, "", "", "fusion_diff", "diffcomp", *scales, *counts, None, api_name="/search"
    )


def test_twenty_visitors_at_once_are_all_answered(url, photo, tmp_path):
    """With complete images, though all of them are shown the same files."""
    clients = [connect(url, tmp_path / str(number)) for number in range(4)]
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda number: send_search(clients[number % 4], photo, f"visitor {number}"), range(20)))
    assert [f"visitor {number}" in answer[0] for number, answer in enumerate(found)] == [True] * 20
    grids = [[part for part in answer if isinstance(part, list)] for answer in found]
    assert all([len(grid) for grid in panels] == [6, 6] for panels in grids)
    for path in {item["image"] for panels in grids for grid in panels for item in grid}:
        with Image.open(path) as image:
            image.load()


OUTSIDE = [
    "/etc/passwd",
    "{project}/params.yaml",
    "{project}/photos/words.png",
    "../../../../etc/passwd",
    "{repository}/README.md",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_file_outside_the_gallery_is_served(url, project, path):
    path = path.format(project=project, repository=Path(__file__).parents[3])
    for prefix in ("gradio_api/file=", "file=", "gradio_api/file/"):
        with pytest.raises(urllib.error.HTTPError) as rejected:
            urllib.request.urlopen(f"{url}{prefix}{path}")
        assert rejected.value.code in (403, 404)


@pytest.mark.parametrize("path", [".cir/nothing.png", "../params.yaml", "{first}"])
def test_a_path_that_was_not_uploaded_is_no_reference(url, project, photo, shared_searcher, path):
    """Sent over plain HTTP: the client of gradio would upload the file first."""
    file = {
        "path": str(project / "photos" / path.format(first=shared_searcher.gallery.ids[0])),
        "meta": {"_type": "gradio.FileData"},
    }
    body = json.dumps({"data": [file, "x", "", "", "slerp", NO_METHOD, 1.0, 1.0, 2, 6, None]}).encode()
    call = urllib.request.Request(f"{url}gradio_api/call/search", body, {"Content-Type": "application/json"})
    try:
        event = json.loads(urllib.request.urlopen(call).read())["event_id"]
        answer = urllib.request.urlopen(f"{url}gradio_api/call/search/{event}").read().decode()
    except urllib.error.HTTPError as rejected:
        answer = f"event: error {rejected.code}"
    assert "event: error" in answer or "this reference cannot be used: there is no such file" in answer
    assert "as a chef" in send_search(connect(url), photo, "as a chef")[0]


PROXIES = ["http://proxy.invalid:3128", "socks5://127.0.0.1:1", "proxy.invalid:3128"]


@pytest.mark.parametrize("proxy", PROXIES)
def test_proxies_of_the_environment_are_passed_by(in_project, shared_searcher, tmp_path, monkeypatch, proxy):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "intranet.invalid")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    from pipeline.app.page.server import launch

    page = on_a_free_port(lambda port: launch(shared_searcher, port=port))
    try:
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "intranet.invalid,127.0.0.1,localhost"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler())
        assert opener.open(page.local_url).status == 200
    finally:
        page.close()


def test_it_listens_on_this_machine_alone(url):
    assert url.startswith("http://127.0.0.1:")
