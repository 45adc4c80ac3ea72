"""SIGTERM with grace: a training ends after a finished step, with a checkpoint."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")
_came = threading.Event()


def sigterm_came() -> bool:
    """Whether a function under `heed_sigterm` has been asked to stop."""
    return _came.is_set()


class AgreedStop:
    """Whether processes that train together are to stop: SIGTERM reaches them at different steps.

    Args:
        processes: How many there are. Several have a process group.
    """

    def __init__(self, processes: int):
        # Of its own, on the CPU: NCCL's would wait for the GPU.
        self._group = torch.distributed.new_group(backend="gloo") if processes > 1 else None

    def came(self) -> bool:
        """Whether any of the processes has been asked to; all of them call this after every step."""
        if self._group is None:
            return sigterm_came()
        flag = torch.tensor(int(sigterm_came()))
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, self._group)
        return bool(flag)


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
