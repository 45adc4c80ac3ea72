"""Where a server of `cir` listens."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from pipeline.app.errors import ServeError


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises ServeError with the reason where it cannot."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, TypeError, UnicodeError) as error:  # the last two for what is no name of a host at all
        number = getattr(error, "errno", None) or 0  # below 0 for a name that is not known
        reason = os.strerror(number) if number > 0 else "it is no address of this machine"
        raise ServeError(f"{ascii(host)}, port {port}: cannot listen there ({reason})") from None


def address(host: str, port: int) -> str:
    """What a person opens in a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def tidy_up_on_sigterm() -> None:
    """From now on SIGTERM ends the program as an exception does, so that temporary files are removed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def wait_for_interrupt() -> None:
    """Wait until Ctrl-C, which is how a person ends a server."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
