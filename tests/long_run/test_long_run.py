"""A short form of `python -m tests.long_run`, and that it would see a leak."""

import json
import subprocess
import sys
from pathlib import Path

from tests.long_run.__main__ import SmallTask, long_training

ROOT = Path(__file__).parents[2]


def test_memory_and_open_files_stay_flat():
    """In a process of its own: what other tests hold is not counted."""
    command = [sys.executable, "-m", "tests.long_run", "--steps", "600", "--rows", "40000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    grown = json.loads(done.stdout.splitlines()[-1])
    assert grown["training"]["open files"] <= 0 and grown["embedding"]["open files"] <= 0


def test_a_leak_is_seen(tmp_path):
    kept = []

    class Hoarder(SmallTask):
        def loss(self, *arguments):
            kept.append(bytearray(b"x" * 2**20))
            return super().loss(*arguments)

    class Opener(SmallTask):
        def loss(self, *arguments):
            kept.append(open(ROOT / "README.md"))
            return super().loss(*arguments)

    watch = long_training(100, tmp_path / "memory", Hoarder)
    assert watch.growth()["megabytes"] > 40 and watch.leaks()
    kept.clear()
    watch = long_training(100, tmp_path / "files", Opener)
    assert watch.growth()["open files"] > 40 and watch.leaks()
    for file in kept:
        file.close()
