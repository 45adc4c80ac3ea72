"""`cir serve`: the application behind uvicorn."""

from __future__ import annotations

import os
import tempfile

import uvicorn

from pipeline.app.errors import ServeError
from pipeline.app.listening import address, listening
from pipeline.app.search.searcher import Searcher
from pipeline.app.service.app import build_app
from pipeline.app.service.settings import Settings


def serve(searcher: Searcher, host: str, port: int, settings: Settings) -> None:
    """Warm the models up, then serve until interrupted.

    Args:
        searcher: The gallery and the models.
        host: The address to listen on.
        port: The port to listen on.
        settings: How the server answers.

    Raises:
        ServeError: When no method can be searched, or the port cannot be listened on.
    """
    if not searcher.methods:
        raise ServeError(
            f"{searcher.gallery.name}: no method has both a trained model and an index here; see `cir index --help`"
        )
    with tempfile.TemporaryDirectory(prefix="cir-serve-") as cache, listening(host, port) as listener:
        os.environ["GRADIO_TEMP_DIR"] = cache
        searcher.warm(searcher.methods[:2])
        config = uvicorn.Config(
            build_app(searcher, settings),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
        print(address(host, port), flush=True)
        uvicorn.Server(config).run(sockets=[listener])
