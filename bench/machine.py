"""What a figure was measured on: no host names, no paths."""

from __future__ import annotations

import os
import platform
import resource
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any


def hardware() -> dict[str, Any]:
    """The processor's model, the cores this process may use, and the memory."""
    return {
        "cpu": _first(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def versions(*packages: str) -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def peak_memory_mib() -> float:
    """The most resident memory that this process has held."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)


class AnonymousPeak:
    """The most anonymous memory that this process holds within the block.

    Pages of mapped files do not count, because the system may take them back.
    It is sampled every 10 ms, where there is /proc.
    """

    def __enter__(self) -> AnonymousPeak:
        self.before_mib = self.peak_mib = _anonymous_mib()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._watch.join()

    def _look(self) -> None:
        while True:
            self.peak_mib = max(self.peak_mib, _anonymous_mib())
            if self._ended.wait(0.01):
                return

    @property
    def grown_mib(self) -> float:
        return round(self.peak_mib - self.before_mib, 1)


def _anonymous_mib() -> float:
    return round(int((_first(Path("/proc/self/status"), "RssAnon") or "0").split()[0]) / 2**10, 1)


def _first(path: Path, key: str) -> str:
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    return ""
