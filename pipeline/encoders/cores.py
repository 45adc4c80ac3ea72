"""The cores that threads and processes run on.

vLLM on a CPU binds the thread that starts it to one core, and whatever that thread starts follows it.
"""

from __future__ import annotations

import os

CORES = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
"""Those that this process was given, as of its import."""


def use_cores(cores: frozenset[int] | None = CORES) -> None:
    """Let the calling thread run on these cores.

    Args:
        cores: Their numbers. None: the system cannot say.
    """
    if cores:
        os.sched_setaffinity(0, cores)
