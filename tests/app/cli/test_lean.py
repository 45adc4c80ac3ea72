"""What a search leaves out, and that tests and services keep it."""

import importlib.util
import subprocess
import sys

from pipeline.app.cli import lean


def test_only_a_process_of_one_command_hides_libraries():
    lean.leave_out_unused()
    assert all(importlib.util.find_spec(name) for name in lean.UNUSED)
    code = """
from pipeline.app.cli import lean
lean.run_one_command()
lean.leave_out_unused()
from importlib.util import find_spec
from diffusers import DPMSolverMultistepScheduler
from transformers.utils import is_sklearn_available
print([find_spec(name) for name in lean.UNUSED], is_sklearn_available())
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[None, None] False"
