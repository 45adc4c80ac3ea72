"""How errors read, for a stage and for a command."""

import errno
import os
import signal
import time

import pytest

from pipeline.artifacts import ArtifactError, read_json
from pipeline.config import ParameterError
from pipeline.errors import is_user_error, report_user_errors, run_stage
from pipeline.fusion_diff import PriorSizes
from pipeline.sources.errors import SourceError
from pipeline.training import TrainingError


def test_an_experiment_that_fails_tells_of_its_parameters(monkeypatch, capsys, tmp_path):
    def fail():
        raise ParameterError("prior.lr: too high")

    own = tmp_path / ".dvc/tmp/exps/one"
    own.mkdir(parents=True)
    for name, folder, lines in (("", tmp_path, 1), ("cosy-moth", tmp_path, 2), ("cosy-moth", own, 1)):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("DVC_EXP_NAME", name) if name else monkeypatch.delenv("DVC_EXP_NAME", raising=False)
        with pytest.raises(SystemExit):
            run_stage(fail)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == lines and said[0] == "error: prior.lr: too high"
        assert all("git checkout params.yaml" in line for line in said[1:])


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


def in_own_code(tmp_path, monkeypatch, body: str):
    """A function of a file that counts as the project's own code."""
    path = tmp_path / "made_up.py"
    path.write_text(f"def run():\n    {body}\n")
    monkeypatch.setattr("pipeline.errors._OWN_CODE", (tmp_path,))
    namespace = {}
    exec(compile(path.read_text(), path, "exec"), namespace)
    return namespace["run"], path


NOT_FORESEEN = {
    "int('._000341')": "ValueError: invalid literal for int() with base 10: '._000341'",
    "{}['missing']": "KeyError: 'missing'",
    "open('/no/such/file')": "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'",
    "raise MemoryError": "MemoryError",
    "[].index(3)": "ValueError: 3 is not in list",
    "import json; json.loads('{')": "JSONDecodeError: Expecting property name",
    "bytes([255]).decode()": "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff",
    "raise RuntimeError('two\\nlines')": "RuntimeError: two lines",
}


@pytest.mark.parametrize(("body", "line"), NOT_FORESEEN.items())
def test_what_nobody_foresaw_is_one_line_with_its_place(tmp_path, monkeypatch, capsys, body, line):
    monkeypatch.delenv("CIR_DEBUG", raising=False)
    run, path = in_own_code(tmp_path, monkeypatch, body)
    with pytest.raises(SystemExit) as ended:
        run_stage(run)
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.count("\n") == 1 and said.startswith(f"error: {line}")
    assert said.endswith(f"({path}:2; CIR_DEBUG=1 in the environment shows the traceback)\n")


def test_the_place_is_in_the_projects_code_and_not_in_a_librarys(capsys):
    with pytest.raises(SystemExit), report_user_errors():
        read_json({"no": "path"})
    assert " (pipeline/artifacts/atomic.py:" in capsys.readouterr().err


@pytest.mark.parametrize("body", ["raise ValueError('what is wrong')", "raise ValueError(\n'what is wrong')"])
def test_a_value_error_made_on_purpose_is_shown_bare(tmp_path, monkeypatch, capsys, body):
    run, _ = in_own_code(tmp_path, monkeypatch, body)
    with pytest.raises(SystemExit), report_user_errors():
        run()
    assert capsys.readouterr().err == "error: what is wrong\n"


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_environment_asks_for_tracebacks(monkeypatch, value, shown):
    monkeypatch.setenv("CIR_DEBUG", value)
    for error in (KeyError("x"), ArtifactError("x")):
        with pytest.raises(type(error) if shown else SystemExit), report_user_errors():
            raise error


def test_a_reader_that_has_ended_is_left_to_the_command_line():
    with pytest.raises(BrokenPipeError), report_user_errors():
        raise BrokenPipeError


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, True), (errno.EACCES, True), (errno.ENAMETOOLONG, True), (errno.ENOENT, False)],
)
def test_which_errors_of_the_system_are_about_what_was_given(number, expected):
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


def test_a_file_that_the_system_rejects_is_named_before_the_reason(tmp_path, capsys):
    (tmp_path / "aside").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit), report_user_errors():
        (tmp_path / "aside").replace(tmp_path / "folder")
    assert capsys.readouterr().err == f"error: {tmp_path / 'folder'}: Is a directory\n"
