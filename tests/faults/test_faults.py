"""A few kills and bad disks, as `python -m tests.faults` deals them out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifacts import StorageError
from pipeline.errors import run_stage

ROOT = Path(__file__).parents[2]


def faults(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """In a process of its own: forks want one that has computed nothing yet."""
    command = [sys.executable, "-m", "tests.faults", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True
    )


def test_killed_and_refused_stages_end_as_if_nothing_had_been():
    done = faults("--kills", "4", "--seed", "3", "--stage", "extract_text", "--stage", "train_prior", "--disks", "1")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["lost or differing"] == 0 and sum(summary["kills"].values()) >= 4 and summary["disks"] == 3
    assert "seed 3" in done.stdout


@pytest.mark.parametrize(
    "error", [StorageError(28, "cannot be written", "data/file"), PermissionError(13, "Not allowed", "data/file")]
)
def test_a_disk_that_refuses_is_one_line_naming_the_file(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run_stage(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: data/file: {error.strerror}\n"
