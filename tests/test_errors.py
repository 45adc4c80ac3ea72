"""How errors read, for a stage and for a command."""

import errno
import os
import signal
import time

import pytest

from pipeline.artifacts import ArtifactError
from pipeline.config import ParameterError
from pipeline.errors import is_user_error, report_user_errors, run_stage
from pipeline.fusion_diff import PriorSizes
from pipeline.sources.errors import SourceError
from pipeline.training import TrainingError


@pytest.mark.parametrize("kind", [ParameterError, ArtifactError, SourceError, TrainingError])
def test_the_projects_errors_are_one_line(kind, capsys):
    def main():
        raise kind("what is wrong\nand where")

    with pytest.raises(SystemExit) as ended:
        run_stage(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: what is wrong and where\n"


def test_a_value_error_about_the_input_is_one_line(capsys):
    with pytest.raises(SystemExit), report_user_errors():
        PriorSizes(8, 1, 4, 2, 12, 5, 2, 4, 16, 8, 4)
    assert capsys.readouterr().err == "error: prior: width 12 is not a multiple of heads 5\n"


def test_a_mistake_in_the_code_keeps_its_traceback():
    with pytest.raises(KeyError), report_user_errors():
        {}["missing"]
    with pytest.raises(ValueError, match="invalid literal"), report_user_errors():
        int("x")


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, True), (errno.EACCES, True), (errno.ENOENT, False)])
def test_a_full_disk_is_a_user_error_and_a_missing_file_is_not(number, expected):
    assert is_user_error(OSError(number, "some words", "some file")) == expected


def test_sigterm_ends_a_stage_as_an_exception_does():
    tidied = []

    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)  # at most: another thread may be the one that takes the signal
        finally:
            tidied.append(True)

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            run_stage(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM and tidied
