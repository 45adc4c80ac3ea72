"""What a search does not pay for, in a process that answers and ends."""

from __future__ import annotations

import functools
import importlib.metadata
import sys

UNUSED = ("scipy", "sklearn")
"""diffusers imports SciPy for schedules, transformers scikit-learn for assisted generation, neither of which is used
here: a fifth of the time before the first answer. Both libraries do without where they are not installed."""

_runs_one_command = False


def run_one_command() -> None:
    """Say that this process runs one command of `cir` and ends, so that no other code misses what is left out."""
    global _runs_one_command
    _runs_one_command = True


def leave_out_unused() -> None:
    """Hide what no search uses, as far as it is not loaded, and list the installed packages once."""
    if not _runs_one_command:
        return
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # Python's mark of a module that is not there
    importlib.metadata.packages_distributions = functools.cache(importlib.metadata.packages_distributions)
