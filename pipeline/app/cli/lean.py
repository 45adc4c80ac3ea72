"""What a search does not pay for, in a process that answers and ends."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import sys
from collections import defaultdict

UNUSED = ("scipy", "sklearn")
"""diffusers imports SciPy for schedules, transformers scikit-learn for assisted generation, neither of which is used
here: a fifth of the time before the first answer. Both libraries do without where they are not installed."""

ALLOCATIONS = 100_000
"""How many new objects there must be before Python looks for unreachable ones. Modules make objects that stay: with
Python's 700, looking through them again and again is a fifth of the time before the first answer."""

_runs_one_command = False


def run_one_command() -> None:
    """Say that this process runs one command of `cir` and ends, so that no other code misses what is left out."""
    global _runs_one_command
    _runs_one_command = True
    gc.set_threshold(ALLOCATIONS, *gc.get_threshold()[1:])


def leave_out_unused() -> None:
    """Hide what no search uses, as far as it is not loaded, and list the installed packages once, quickly."""
    if not _runs_one_command:
        return
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # Python's mark of a module that is not there
    importlib.metadata.packages_distributions = functools.cache(_packages_distributions)


def _packages_distributions() -> dict[str, list[str]]:
    """Package -> the distributions that bring it. Python's own function makes a path of each of 40,000 files."""
    found: dict[str, list[str]] = defaultdict(list)
    for distribution in importlib.metadata.distributions():
        listed = distribution.read_text("top_level.txt")
        files = [] if listed else (distribution.read_text("RECORD") or "").splitlines()
        tops = (line.split(",", 1)[0].split("/", 1) for line in files)
        packages = {top.split(".")[0] for top, *below in tops if below or top.endswith((".py", ".so", ".pyd"))}
        for package in (listed or "").split() or filter(str.isidentifier, packages):
            found[package].append(distribution.metadata["Name"])
    return dict(found)
