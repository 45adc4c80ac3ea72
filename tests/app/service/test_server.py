"""Why a server does not start: one line, before any model is loaded."""

import socket
import sys

import pytest
from typer.testing import CliRunner

pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")
from pipeline.app.cli.main import app
from pipeline.app.errors import ServeError
from pipeline.app.listening import listening
from pipeline.app.service.app import build_app
from pipeline.app.service.settings import Settings


@pytest.mark.parametrize(
    ("host", "reason"), [("1.2.3.4", "Cannot assign"), ("ä" * 70, "no address"), ("no.invalid", "")]
)
def test_an_address_that_is_not_this_machine(host, reason):
    with pytest.raises(ServeError, match=f"cannot listen there .*{reason}"):
        listening(host, 8000)


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port}: cannot listen there .Address already in use"):
            listening("127.0.0.1", port)


def test_a_page_without_gradio(searcher, monkeypatch):
    monkeypatch.setitem(sys.modules, "pipeline.app.page.server", None)
    with pytest.raises(ServeError, match="gradio is missing"):
        build_app(searcher, Settings())
    assert build_app(searcher, Settings(with_page=False)).routes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--milvus", "http://localhost:19530"], "emoji_cir is a benchmark"),
        (["--describer", "neither"], "is no folder and no hub name"),
        (["--allow-origin", "nowhere"], "is no origin"),
    ],
)
def test_options_that_cannot_be_used(in_project, options, message):
    done = CliRunner().invoke(app, ["serve", "--gallery", "emoji_cir", *options])
    assert done.exit_code == 1 and message in " ".join(done.output.split())
