"""The torchvision hook, in processes of their own: here torchvision may be loaded already."""

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def python(code, tmp_path, **environment):
    """What a fresh process prints, started outside the checkout."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


def test_open_clip_imports_in_a_child_that_knows_nothing_of_it(tmp_path):
    code = """
import subprocess, sys
import pipeline
subprocess.run([sys.executable, "-c", "import torchvision, open_clip; print(open_clip.__name__)"], check=True)
"""
    assert python(code, tmp_path) == "open_clip"


def test_installing_again_is_harmless(tmp_path):
    code = """
import os, sys
import pipeline
from pipeline.compat import install
finders, path = len(sys.meta_path), os.environ["PYTHONPATH"]
install()
install()
assert (len(sys.meta_path), os.environ["PYTHONPATH"]) == (finders, path)
import torchvision
install()
import torchvision.ops
print("ok")
"""
    assert python(code, tmp_path) == "ok"


def test_it_goes_in_front_of_what_python_path_holds_and_imports_no_torch_by_itself(tmp_path):
    code = """
import os, sys
import pipeline
print(os.environ["PYTHONPATH"].split(os.pathsep)[1:], "torch" in sys.modules, "torchvision" in sys.modules)
"""
    assert python(code, tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}/elsewhere") == f"['{ROOT}', '/elsewhere'] False False"


def test_torchvisions_operators_are_declared():
    import torchvision  # noqa: F401

    assert torch.ops.torchvision.nms is not None
