"""`cir serve`: the application behind uvicorn."""

from __future__ import annotations

import os
import socket
import tempfile

import uvicorn

from pipeline.app.errors import ServeError
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
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ServeError with the reason where it cannot."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, TypeError, UnicodeError) as error:  # the last two for what is no name of a host at all
        number = getattr(error, "errno", None) or 0  # below 0 for a name that is not known
        reason = os.strerror(number) if number > 0 else "it is no address of this machine"
        raise ServeError(f"{ascii(host)}, port {port}: cannot listen there ({reason})") from None
