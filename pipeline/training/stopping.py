"""SIGTERM with grace: a training ends after a finished step, with a checkpoint."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")
_came = threading.Event()


def sigterm_came() -> bool:
    """Whether a function under `heed_sigterm` has been asked to stop."""
    return _came.is_set()


def stop(message: str) -> NoReturn:
    """End the process as SIGTERM does, with a line on stderr."""
    print(message, file=sys.stderr)
    raise SystemExit(128 + signal.SIGTERM)


def heed_sigterm(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """While `function` runs, SIGTERM only sets what `sigterm_came` returns.

    One that came too late for `function` to heed it has its usual effect afterwards. Outside the main thread nothing
    changes.
    """

    @functools.wraps(function)
    def heeding(*arguments: _P.args, **options: _P.kwargs) -> _R:
        if threading.current_thread() is not threading.main_thread():
            return function(*arguments, **options)
        _came.clear()
        before = signal.signal(signal.SIGTERM, lambda number, frame: _came.set())
        try:
            result = function(*arguments, **options)
        finally:
            signal.signal(signal.SIGTERM, before)
        if _came.is_set():
            signal.raise_signal(signal.SIGTERM)
        return result

    return heeding
