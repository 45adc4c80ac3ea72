"""How a server answers: what its options and its environment say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.app.errors import ServeError

KEY_VARIABLE = "CIR_API_KEY"
"""The environment variable with the key that every request must bring."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Settings:
    """How one server answers."""

    key: str = ""
    """What every request must bring; empty: nothing."""
    origins: tuple[str, ...] = ()
    """Pages of other origins that may call."""
    own_hosts: tuple[str, ...] = ()
    """The only names that the server answers to; none: any."""
    seconds: float = 30.0
    """From a request to its answer, and for a body to arrive."""
    with_page: bool = True
    """Whether the page is mounted."""


def settings_of(host: str, origins: Sequence[str], seconds: float, with_page: bool) -> Settings:
    """The settings that options and environment make.

    Without a key, a server on the loopback address answers to its own names alone: no page in a browser can reach it
    under a name of its own.

    Args:
        host: The address to listen on.
        origins: Pages of other origins that may call.
        seconds: From a request to its answer.
        with_page: Whether the page is mounted.

    Raises:
        ServeError: The key is empty, or an origin is none.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    if KEY_VARIABLE in os.environ and (not key.strip() or key != key.strip() or not key.isascii()):
        raise ServeError(f"{KEY_VARIABLE}: it is empty, or has spaces around it or characters beyond ASCII")
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and not (parts.scheme in ("http", "https") and origin == f"{parts.scheme}://{parts.netloc}"):
            raise ServeError(f"--allow-origin: {origin!r} is no origin such as https://example.org")
    own_hosts = LOOPBACK if host in LOOPBACK and not key else ()
    return Settings(key, tuple(origins), own_hosts, seconds, with_page)
