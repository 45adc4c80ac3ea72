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
    place = f"{ascii(host)}, port {port}: cannot listen there"
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (socket.gaierror, UnicodeError):
        raise ServeError(f"{place} (it is no address of this machine)") from None
    except OSError as error:
        raise ServeError(f"{place} ({os.strerror(error.errno or 0)})") from None
