"""The demo page behind a server of its own."""

import socket

import pytest


@pytest.fixture(scope="module")
def url(project, shared_searcher, tmp_path_factory):
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("GRADIO_TEMP_DIR", str(cache))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        from pipeline.app.page.server import launch

        page = on_a_free_port(lambda port: launch(shared_searcher, port=port))
        yield page.local_url
        page.close()


def on_a_free_port(start):
    """A port is only known to be free until another process takes it."""
    for _ in range(10):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        try:
            return start(port)
        except OSError as error:
            taken = error
    raise taken
