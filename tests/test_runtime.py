"""Memory that torch frees and takes again: nothing fills it, and the system does not get it back in between."""

import platform
import subprocess
import sys

import pytest
import torch

from pipeline.runtime import make_deterministic

STEPS = """
import resource
import torch
from pipeline.runtime import keep_freed_memory

assert keep_freed_memory()
found = []
for step in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(4_000_000) for _ in range(8)]  # 16 MB each
    del tensors
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(found[1:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it likes")
def test_the_memory_of_a_step_serves_the_next_one():
    child = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert int(child.stdout) < 1000  # page faults of the best step; left alone, it has 31,000 most of the times


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_memory_that_is_about_to_be_written_is_not_filled(where):
    before = torch.get_deterministic_debug_mode()
    try:
        make_deterministic(where, deterministic=True)
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.set_deterministic_debug_mode(before)
