"""A training stage starts itself in several processes, and ends as one would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.config import ParameterError, RuntimeParams
from pipeline.training.launch import process_count
from tests.sections import section

ROOT = Path(__file__).parents[2]
STAGE = """
import os, sys
from pathlib import Path
import torch
from accelerate import PartialState
from pipeline.config import load_params
from pipeline.errors import run_stage
from pipeline.runtime import set_up
from pipeline.training import Run, train
from pipeline.training.launch import on_all_gpus
from tests.sections import section
from tests.training.conftest import NetTask, OptimiserParams

def main():
    params = load_params()
    set_up(params.runtime, 0)
    if os.environ["RANK"] in os.environ.get("WRONG", ""):
        raise ValueError("the data are wrong")
    task = NetTask()
    del task.model.unused  # which several processes do not allow
    steps = int(os.environ.get("STEPS", "3"))
    train(task, section(OptimiserParams, steps=steps, batch_size=8, log_every=1), Run(0, Path("run"), {}, "cpu"))
    Path(f"rank{PartialState().process_index}").write_text(str(PartialState().num_processes))
    torch.save(task.model.state_dict(), f"weights{PartialState().process_index}")
    print("ended")

if __name__ == "__main__":
    run_stage(on_all_gpus(main))
"""


@pytest.fixture
def start(tmp_path):
    """Start the stage in two processes, with variables of the environment."""
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("device: auto\n  gpus: auto", "device: cpu\n  gpus: 2", 1))
    (tmp_path / "a_stage.py").write_text(STAGE)

    def start(**environment) -> subprocess.Popen:
        env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "OMP_NUM_THREADS": "1", **environment}
        command = [sys.executable, "-m", "a_stage"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=env, text=True, stdout=pipe, stderr=pipe)

    return start


def test_two_processes_train_together_and_one_of_them_speaks(start, tmp_path):
    process = start()
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert out.splitlines() == ["ended"]
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text() == "2"
    first, second = (torch.load(tmp_path / f"weights{rank}") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name, _ in first.items() if name != "mean")


@pytest.mark.parametrize("ranks", ["01", "1"])
def test_an_error_in_any_process_is_one_line_and_ends_all(start, ranks):
    process = start(WRONG=ranks, STEPS="100000")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    told = [line for line in error.splitlines() if "the data are wrong" in line]
    assert len(told) == 1 and "Traceback" not in error, error


def test_sigterm_ends_all_after_the_same_step_with_a_checkpoint(start, tmp_path):
    process = start(STEPS="1000000")
    log = time.monotonic() + 100
    while time.monotonic() < log and not (tmp_path / "run").is_dir():
        time.sleep(0.2)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after step" in error and list((tmp_path / "run" / "checkpoint").iterdir())


@pytest.mark.parametrize(
    ("gpus", "device", "visible", "count"),
    [
        ("auto", "auto", 0, 1),
        ("auto", "auto", 1, 1),
        ("auto", "auto", 8, 8),
        ("2", "auto", 8, 2),
        ("auto", "cuda:1", 8, 1),
        ("auto", "cpu", 8, 1),
        ("2", "cpu", 0, 2),
    ],
)
def test_the_number_of_processes(monkeypatch, gpus, device, visible, count):
    _machine(monkeypatch, visible)
    assert process_count(section(RuntimeParams, gpus=gpus, device=device)) == count


def test_more_gpus_than_there_are_is_an_error_with_both_numbers(monkeypatch):
    _machine(monkeypatch, 2)
    with pytest.raises(ParameterError, match=r"runtime.gpus: 4 GPUs are asked for, and 2 can be used"):
        process_count(section(RuntimeParams, gpus="4", device="auto"))


@pytest.mark.parametrize("wrong", ["0", "-1", "all", "1.5", ""])
def test_what_is_no_number_of_gpus_is_refused(wrong):
    with pytest.raises(ParameterError, match="runtime.gpus"):
        section(RuntimeParams, gpus=wrong)


def _machine(monkeypatch, visible: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
