"""The client for Python, against the server as a process."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
from pipeline.app.service.client import Client, ClientError, reference  # noqa: E402
from pipeline.app.service.models import Search  # noqa: E402


@pytest.fixture(scope="module")
def client(url):
    with Client(url) as client:
        yield client


@pytest.fixture
def ids(client) -> list[str]:
    return [image.id for image in client.images(limit=20).images]


def test_the_client_needs_no_models():
    said = "import sys, pipeline.app.service.client; print({'torch', 'numpy', 'faiss'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout == "set()\n", done.stderr


def test_every_call(client, ids, photo):
    assert client.is_healthy() and client.info().images == client.images().total
    answer = client.search(ids[0], "in red", method="slerp", top=3)
    assert len(answer.hits) == 3 and client.image(answer.hits[0].id, 32).startswith(b"RIFF")
    by_file, by_bytes = (client.search(one, "in red", top=2) for one in (Path(photo), Path(photo).read_bytes()))
    assert by_file.hits == by_bytes.hits
    mixed = client.search([reference(ids[0]), reference(ids[1], -0.5)], "in red", liked=[ids[3]])
    assert mixed.hits[0].rank == 1
    several = client.search_batch([Search(references=[reference(ids[0])], text="in red", method="slerp", top=3)])
    assert several[0].hits == answer.hits
    assert client.describe(ids[0], "in red") and client.explain(ids[0], "in red", method="diffcomp").kept


def test_images_come_and_go(client, ids, tmp_path):
    Image.new("RGB", (32, 32), "purple").save(tmp_path / "purple.png")
    added = client.add([tmp_path / "purple.png"], "by client", {"by client/purple.png": {"year": 2024}})
    assert [image.id for image in added.images] == ["by client/purple.png"]
    hits = client.search(ids[0], "in purple", method="slerp", filter="year == 2024").hits
    assert [hit.id for hit in hits] == ["by client/purple.png"]
    assert client.images(where="year == 2024").images[0].fields["year"] == 2024
    client.remove("by client/purple.png", file=True)
    with pytest.raises(ClientError, match="is no image of this gallery"):
        client.image("by client/purple.png")


def test_errors_are_of_one_kind(client, ids):
    with pytest.raises(ClientError, match="'nothing' is no image of this gallery") as error:
        client.search("nothing", "in red")
    assert (error.value.status, error.value.code) == (404, "unknown_id")
    with pytest.raises(ValidationError):
        client.search(ids[0], "in red", unknown=1)
    with Client("http://127.0.0.1:9") as nobody:
        assert not nobody.is_healthy()
        with pytest.raises(ClientError, match="no answer"):
            nobody.info()
