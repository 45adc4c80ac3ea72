"""The server of the demo page."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI

from pipeline.app.errors import ServeError
from pipeline.app.listening import address, listening, tidy_up_on_sigterm, wait_for_interrupt
from pipeline.app.page.layout import build_page
from pipeline.app.page.style import CSS
from pipeline.app.search.searcher import Searcher
from pipeline.errors import as_one_line


def serve(searcher: Searcher, host: str, port: int) -> None:
    """Warm the models up, then serve the page until interrupted.

    Uploads and thumbnails live in a temporary folder and are removed with the process.

    Args:
        searcher: The gallery and the models.
        host: The address to listen on.
        port: The port to listen on.

    Raises:
        ServeError: When no method can be searched, or the port cannot be listened on.
    """
    tidy_up_on_sigterm()
    listening(host, port).close()  # before the models are loaded
    with tempfile.TemporaryDirectory(prefix="cir-demo-") as cache:
        os.environ["GRADIO_TEMP_DIR"] = cache
        if not searcher.methods:
            raise ServeError(
                f"{searcher.gallery.name}: no method has both a trained model and an index here; see `cir index --help`"
            )
        searcher.warm(searcher.methods[:2])
        try:
            page = launch(searcher, host, port)
        except OSError as error:  # another program has taken the port meanwhile
            raise ServeError(f"{address(host, port)}: cannot listen there ({as_one_line(error)})") from None
        print(address(host, port), flush=True)
        wait_for_interrupt()
        page.close(verbose=False)


def launch(searcher: Searcher, host: str = "127.0.0.1", port: int = 7860) -> gr.Blocks:
    """Start the server. Files that the page makes live in GRADIO_TEMP_DIR.

    Args:
        searcher: The gallery and the models.
        host: The address to listen on.
        port: The port to listen on.

    Returns:
        The page, whose `close` ends the server.

    Raises:
        OSError: When the port cannot be listened on.
    """
    page = build_page(searcher)
    with past_proxies(host):
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            **_options(),
        )
    return page


def mount(app: FastAPI, searcher: Searcher, path: str) -> None:
    """Put the page on a server that is there already. Its files live in GRADIO_TEMP_DIR.

    Args:
        app: The server's application.
        searcher: The gallery and the models.
        path: Where the page is.
    """
    gr.mount_gradio_app(app, build_page(searcher), path, **_options())


def _options() -> dict[str, Any]:
    """How the page looks, and what it never serves."""
    return {
        "ssr_mode": False,
        "allowed_paths": [],
        "max_file_size": "60mb",
        "show_error": False,
        "footer_links": [],
        "css": CSS,
        "enable_monitoring": False,
        "theme": gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    }


@contextmanager
def past_proxies(host: str) -> Iterator[None]:
    """Use no proxy within the block. After it, the environment excepts the page's own address from its proxies.

    Gradio asks its own server whether it is up. A proxy of the environment cannot answer that, and one of a kind that
    the HTTP client does not know would end the program even for excepted addresses.
    """
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    _except_from_proxies("*")
    try:
        yield
    finally:
        known = [name.strip() for name in excepted.split(",") if name.strip()]
        _except_from_proxies(",".join(dict.fromkeys([*known, host, "127.0.0.1", "localhost"])))


def _except_from_proxies(hosts: str) -> None:
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = hosts
