"""What a search leaves out, and that tests and services keep it."""

import importlib.metadata
import importlib.util
import subprocess
import sys

import pytest

from pipeline.app.cli import lean

HEAVY = ["accelerate", "diffusers", "faiss", "gradio", "open_clip", "pandas", "scipy", "sklearn", "spacy"]
HEAVY += ["torch", "torchvision", "transformers", "vllm"]
TABLES = ["numpy", "pyarrow"]


def loaded(code: str) -> set[str]:
    """Which of the heavy libraries a process has loaded after `code`."""
    print_them = f"import sys\nprint(*[name for name in {HEAVY + TABLES} if sys.modules.get(name)])"
    child = subprocess.run([sys.executable, "-c", f"{code}\n{print_them}"], capture_output=True, text=True, check=True)
    return set(child.stdout.splitlines()[-1].split())


def command(*words: object) -> str:
    return f"""
import sys
from pipeline.app.cli.main import main
sys.argv = {["cir", *map(str, words)]}
try:
    main()
except SystemExit as ended:
    print(ended.code)
"""


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("import pipeline", set()),
        (command("--help"), set()),
        (command("--version"), set()),
        (command("search", "--help"), set()),
        (command("index", "missing"), set(TABLES)),
        (command("search", "--gallery", "missing", "--image", "a.png", "--text", "b"), set(TABLES)),
        (command("search", "--image", "missing.png", "--text", "b"), set(TABLES)),
        (command("search", "--gallery", "photos", "--image", "missing.png", "--text", "b"), set(TABLES)),
        (command("demo", "--gallery", "missing"), set(TABLES)),
    ],
)
def test_what_answers_without_models_loads_no_heavy_library(in_project, photo, code, kept):
    assert loaded(code) <= kept


def test_deterministic_algorithms_do_not_load_torchs_compiler():
    code = """
import sys
import torch
from pipeline.runtime import make_deterministic
for mode in (("cpu", False), ("cuda", True), ("cuda", False)):
    make_deterministic(*mode)
    print(torch.get_deterministic_debug_mode(), "torch._dynamo" in sys.modules)
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == ["2", "False", "1", "False", "0", "False"]


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


def test_the_packages_are_those_that_python_lists():
    found, listed = lean._packages_distributions(), importlib.metadata.packages_distributions()
    for package in filter(str.isidentifier, listed):
        assert set(found[package]) == set(listed[package]), package


def test_python_looks_for_unreachable_objects_less_often_in_such_a_process():
    code = """
import gc
from pipeline.app.cli import lean
lean.run_one_command()
print(gc.isenabled(), gc.get_threshold())
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.startswith(f"True ({lean.ALLOCATIONS}, ")
