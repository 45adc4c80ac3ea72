"""Runs a stage's command and watches it: time, progress, and the memory of it and of its children."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

EVERY = 0.2
"""Seconds between two looks at the memory."""
BAR = re.compile(r"^\s*(?P<name>.*?):\s+\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+) \[")
ENGINES = re.compile(r"(Capturing|Loading|Profiling|Compiling|Rendering|Adding|Processed) ")
"""How vLLM's own bars begin. They are parts of its start or of a batch, and grow with no work of the stage."""
RATE = re.compile(r"samples_s=([\d.]+)")
HELD = re.compile(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


@dataclass
class Bar:
    """A progress bar as it was seen: when, and how far. One that begins anew is another part of the same work."""

    seen: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds, rows that are done, rows in all."""
    samples_per_second: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Rows that were seen done and of how many, their seconds, and rows a second once the first were done."""
        parts = self.parts()
        rows, seconds = sum(part[-1][1] - part[0][1] for part in parts), sum(part[-1][0] - part[0][0] for part in parts)
        whole = rows / max(seconds, 1e-3)
        later = [part[_first_rows(part) :] for part in parts]
        steady_rows, steady_seconds = (sum(part[-1][axis] - part[0][axis] for part in later) for axis in (1, 0))
        steady = steady_rows / steady_seconds if steady_rows and steady_seconds > 1.0 else whole
        of = sum(part[-1][2] for part in parts)
        facts = {"rows": rows, "of": of, "seconds": round(seconds, 2), "rows_per_second": round(steady, 3)}
        if steady != whole:
            facts["start_up_seconds"] = round(max(0.0, seconds - rows / steady), 2)
        return facts | ({"samples_per_second": self.samples_per_second} if self.samples_per_second else {})

    def parts(self) -> list[list[tuple[float, int, int]]]:
        """What was seen, cut where the bar begins anew: with fewer rows done, or with another number in all."""
        both = enumerate(pairwise(self.seen), start=1)
        cuts = [at for at, (last, one) in both if one[1] < last[1] or one[2] != last[2]]
        return [self.seen[begin:end] for begin, end in pairwise([0, *cuts, len(self.seen)])]


def _first_rows(part: list[tuple[float, int, int]]) -> int:
    """Where the first rows are done, or the end."""
    return next((at for at, one in enumerate(part) if one[1] > part[0][1]), len(part) - 1)


def run(command: str, folder: Path, environment: dict[str, str], limit: float) -> dict[str, Any]:
    """Run a command to its end.

    Args:
        command: As in `dvc.yaml`; `python` is this interpreter.
        folder: Where it runs.
        environment: Added to this process's own.
        limit: Seconds, after which it is ended.

    Returns:
        `seconds`, `bars`, `peak_host_gib` with how many processes held it and the largest of them, `peak_gpu_gib`, and
        `error` with the last line where it failed.
    """
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    began = time.perf_counter()
    process = subprocess.Popen(
        words, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    bars, tail = dict[str, Bar](), list[str]()
    reader = threading.Thread(target=_read, args=(process, began, bars, tail), daemon=True)
    reader.start()
    host, gpu = list[int](), 0.0
    idle = _gpu_bytes()
    while process.poll() is None:
        host, gpu = max(host, _held(process.pid), key=sum), max(gpu, _gpu_bytes() - idle)
        if time.perf_counter() - began > limit:
            _end(process.pid)
            tail.append(f"ended after {limit:.0f} s")
        time.sleep(EVERY)
    reader.join(5)
    facts: dict[str, Any] = {"seconds": round(time.perf_counter() - began, 1)}
    facts["bars"] = {name: bar.facts() for name, bar in bars.items() if len(bar.seen) > 1}
    facts |= {"peak_host_gib": round(sum(host) / 2**30, 2), "peak_gpu_gib": round(gpu / 2**30, 2)}
    facts |= {"processes": len(host), "largest_process_gib": round(max(host, default=0) / 2**30, 2)}
    if process.returncode:
        facts["error"] = "; ".join(tail[-4:])[-600:]
    if process.returncode < 0:  # the system kills what takes the last of the host's memory, and says nothing
        facts["error"] = f"killed by signal {-process.returncode}; {facts['error']}"
    return facts


def _read(process: subprocess.Popen, began: float, bars: dict[str, Bar], tail: list[str]) -> None:
    """Follow the output; a bar draws over itself with carriage returns."""
    assert process.stdout is not None
    line = b""
    while chunk := os.read(process.stdout.fileno(), 65536):
        *lines, line = re.split(rb"[\r\n]", line + chunk)
        if BAR.match(line.decode(errors="replace")):  # the next drawing, which ends this one, may be seconds away
            lines, line = [*lines, line], b""
        for text in (one.decode(errors="replace") for one in lines):
            if found := BAR.match(text):
                if ENGINES.match(found["name"]):
                    continue
                bar = bars.setdefault(found["name"], Bar())
                bar.seen.append((time.perf_counter() - began, int(found["done"]), int(found["total"])))
                bar.samples_per_second = float((RATE.findall(text) or [bar.samples_per_second])[-1])
            elif text.strip():
                print(text, flush=True)
                tail.append(text.strip())


def _held(pid: int) -> list[int]:
    """Bytes that a process and each of its descendants hold, largest last.

    Anonymous and shared memory, of pages that several share its part. Pages of files (mapped weights) do not count:
    the system takes them back.
    """
    found = []
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(OSError):  # it has just ended
                smaps = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                found.append(1024 * sum(int(size) for size in HELD.findall(smaps)))
    except psutil.Error:
        pass
    return sorted(found)


def _gpu_bytes() -> float:
    """Used memory of the GPUs that the stage may see; 0 without any."""
    try:
        asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
            asked += ["--id", visible]
        lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        return sum(float(line) for line in lines) * 2**20
    except (OSError, subprocess.CalledProcessError, ValueError):
        return 0.0


def _end(pid: int) -> None:
    try:
        root = psutil.Process(pid)
        for process in (*root.children(recursive=True), root):
            process.kill()
    except psutil.Error:
        return
