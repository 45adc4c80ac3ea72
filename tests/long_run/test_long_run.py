"""A short form of `python -m tests.long_run`, and proof that it would see a leak."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.long_run.__main__ import SmallTask, long_training

ROOT = Path(__file__).parents[2]


def test_memory_and_open_files_stay_flat():
    """In a process of its own: what other tests hold is not counted."""
    command = [sys.executable, "-m", "tests.long_run", "--steps", "600", "--rows", "40000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    grown = json.loads(done.stdout.splitlines()[-1])
    assert grown["training"]["open files"] <= 0 and grown["embedding"]["open files"] <= 0


MEBIBYTE = {
    "python": lambda: bytearray(2**20),
    "numpy": lambda: np.zeros(2**17),
    "torch": lambda: torch.zeros(2**18),
    "arrow": lambda: pa.py_buffer(b"x" * 2**20).slice(1),
}


@pytest.mark.parametrize("make", MEBIBYTE.values(), ids=MEBIBYTE.keys())
def test_kept_memory_is_seen(tmp_path, make):
    """A mebibyte kept at each of 100 steps: 80 of them after the warm-up, whatever else the machine does."""
    kept = []

    class Hoarder(SmallTask):
        def loss(self, *arguments):
            kept.append(make())
            return super().loss(*arguments)

    watch = long_training(100, tmp_path, Hoarder)
    assert 60 < watch.growth()["megabytes"] < 100 and watch.leaks()


def test_files_kept_open_are_seen(tmp_path):
    with ExitStack() as kept:

        class Opener(SmallTask):
            def loss(self, *arguments):
                kept.enter_context(open(ROOT / "README.md"))
                return super().loss(*arguments)

        watch = long_training(100, tmp_path, Opener)
        assert watch.growth()["open files"] > 40 and watch.leaks()
