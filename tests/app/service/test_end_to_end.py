"""A server's whole day: it is searched over HTTP and on its page, is killed twice, once during an add, and goes on."""

import io
import shutil
import signal
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from pipeline.app.search.library import Library
from pipeline.app.service.client import Client, ClientError
from tests.app.page.test_in_browser import Visitor, browser  # noqa: F401 - a fixture
from tests.app.service.conftest import serving, starting
from tests.app.service.test_bad_requests import check
from tests.app.service.test_changes import add

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL"),
]
KEY = {"CIR_API_KEY": "secret"}


def pictures(count: int, seed: int) -> dict[str, bytes]:
    """Name -> a PNG like no other."""
    random, found = np.random.default_rng(seed), {}
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((64, 64)).save(buffer, "PNG")
        found[f"{seed}-{number}.png"] = buffer.getvalue()
    return found


@pytest.fixture
def folder(project, tmp_path):
    shutil.copytree(project / "photos", tmp_path / "photos")
    return tmp_path / "photos"


def test_a_server_survives_its_day(project, folder, photo, tmp_path, request):
    first, second = pictures(3, seed=1), pictures(40, seed=2)
    process, url = starting(project, gallery=str(folder), **KEY)
    for name, content in (first | second).items():
        (tmp_path / name).write_bytes(content)
    with Client(url, key="secret") as client:
        before = client.info().images
        added = client.add([tmp_path / name for name in first], metadata={"1-0.png": {"year": 2024}})
        assert (added.added, client.info().images) == (3, before + 3)
        assert client.search(tmp_path / "1-0.png", "", top=1).hits[0].id == "1-0.png"
        on_the_page(url, photo, tmp_path, request)

        # Killed while an add goes on: as soon as one of its files is there.
        outcome: list[Exception] = []

        def ask() -> None:
            try:
                client.add([tmp_path / name for name in second], folder="late")
            except ClientError as error:
                outcome.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        while not list(folder.glob("late/2-*.png")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        asking.join(), process.wait()
    library = Library.open(folder)
    assert set(first) <= set(library.ids) and library.entries(["1-0.png"])[0].fields == {"year": 2024}
    assert len([one for one in library.ids if one.startswith("late/")]) in ((0, 40) if outcome else (40,))

    with serving(project, "--no-page", gallery=str(folder), **KEY) as url, Client(url, key="secret") as client:
        for name in first:
            assert client.search(tmp_path / name, "", top=1).hits[0].id == name
        assert [one.id for one in client.images(where="year == 2024").images] == ["1-0.png"]
        client.add([tmp_path / name for name in second], folder="late")  # asked again, it ends well
        assert client.info().images == before + 43
        assert client.search(tmp_path / "2-7.png", "", top=1).hits[0].id == "late/2-7.png"
        assert [path for path in folder.rglob("*") if path.name.startswith(".") and path.name != ".cir"] == []


def on_the_page(url, photo, tmp_path, request) -> None:
    """A visitor of the same process in Chromium; nothing where there is none."""
    try:
        chromium = request.getfixturevalue("browser")
    except pytest.skip.Exception:
        return
    context = chromium.new_context(http_credentials={"username": "anyone", "password": "secret"})
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.goto(url)
    Visitor(page, "day", tmp_path).search_with(photo, "as a farmer")
    assert page.locator("#first-results img").count() >= 10
    context.close()


def test_the_same_file_may_be_added_again(project, folder):
    content = pictures(1, seed=3)["3-0.png"]
    with (
        serving(project, "--no-page", gallery=str(folder)) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        (folder / "there.png").write_bytes(content)  # as a kill leaves it: a file, and nothing in the library
        assert add(http, ("there.png", content)).json()["added"] == 1
        again = add(http, ("there.png", content)).json()
        assert (again["added"], again["replaced"]) == (0, 0) and again["images"][0]["id"] == "there.png"
        check(add(http, ("there.png", pictures(1, seed=4)["4-0.png"])), 409, "'there.png' is there")
