"""Names of files that are none, for every argument and option of every command that takes a name."""

import os
import shutil
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from pipeline.app.cli.library import index
from pipeline.app.cli.main import app

COMMANDS = typer.main.get_command(app).commands
LONG, DEEP = "x" * 300, "/".join(["y" * 200] * 30)
NAMES = {
    "long": LONG,
    "long with an ending": f"{LONG}.png",
    "deep": f"{DEEP}/a.png",
    "NUL": "a\0b.png",
    "a folder": "folder",
    "below a file": "file.png/a.png",
    "a loop of links": "loop",
    "not UTF-8": os.fsdecode(b"\xff.png"),
    "line ends": "a\nb\r.png",
    "empty file": "empty",
    "nothing": "nowhere/a.png",
}
TAKES_NAMES = {
    "index": ("folder", "out", "method", "encoder", "params"),
    "search": ("image", "gallery", "method", "region", "sampler", "html", "describer", "params"),
    "demo": ("gallery", "describer", "params", "host"),
    "score": ("benchmark", "annotations", "predictions", "split"),
    "submit": ("benchmark", "annotations", "predictions", "out", "split", "name"),
    "info": ("profile", "conf"),
    "check": ("profile", "conf", "overrides"),
    "rejected": ("place",),
    "verify": ("root",),
}
CASES = [(command, option) for command, taken in TAKES_NAMES.items() for option in taken]


@pytest.fixture
def given(in_project, tmp_path, photo, monkeypatch) -> dict[str, dict[str, object]]:
    """What every command is given besides: a run that would succeed, or nearly."""
    shutil.copytree(in_project, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    Path("folder/below").mkdir(parents=True)
    Path("file.png").write_bytes(Path(photo).read_bytes())
    Path("loop").symlink_to("loop")
    Path("empty").touch()
    Path("few").mkdir()
    Path("few/a.png").write_bytes(Path(photo).read_bytes())
    Path("lists.json").write_text("{}")
    search = {"image": photo, "text": "red", "gallery": "photos", "method": "slerp"}
    scored = {"benchmark": "circo", "annotations": "folder", "predictions": "lists.json"}
    return {
        "index": {"folder": "few", "method": "slerp"},
        "search": search,
        "demo": {"gallery": "photos"},
        "score": scored,
        "submit": scored | {"out": "submission"},
        "info": {},
        "check": {},
        "rejected": {},
        "verify": {},
    }


def words_of(command: str, given: dict[str, object]) -> list[str]:
    words = [command]
    for parameter in COMMANDS[command].params:
        if parameter.name in given:
            is_option = parameter.param_type_name == "option"
            words += [parameter.opts[0], str(given[parameter.name])] if is_option else [str(given[parameter.name])]
    return words


def test_every_name_that_a_command_takes_is_tried():
    """Everything that is a path or a text, and not a text of the search."""
    found = set()
    for callback in (index, *(registered.callback for registered in app.registered_commands)):
        hints = get_type_hints(callback)
        found |= {
            (callback.__name__, name)
            for name, hint in hints.items()
            if {str, Path} & {hint, *get_args(hint), *(part for one in get_args(hint) for part in get_args(one))}
        }
    texts = {("search", name) for name in ("text", "negative", "concept")} | {("rejected", "reason")}
    elsewhere = {("index", name) for name in ("name", "add", "remove", "metadata")} | {("search", "where")}
    assert found - texts - elsewhere == set(CASES), "what is elsewhere is tested in test_library.py"


@pytest.mark.parametrize(("command", "option"), CASES)
def test_each_is_one_line_and_no_traceback(given, monkeypatch, command, option):
    def serve(*arguments):
        raise OSError("cannot listen")

    monkeypatch.setattr("pipeline.app.page.server.launch", serve)
    monkeypatch.setattr("pipeline.app.search.searcher.Searcher.warm", lambda *arguments: None)
    wrong = {}
    for kind, name in NAMES.items():
        result = CliRunner().invoke(app, words_of(command, given[command] | {option: name}))
        said = result.stderr.replace("\r", "\n")
        said = said[max(0, said.find("error: ")) :]  # behind the bars of progress
        if result.exit_code == 0 or (kind == "NUL" and result.exit_code == 2):  # the second: no shell hands it on
            continue
        is_one_line = result.exit_code == 1 and said.startswith("error: ") and said.count("\n") == 1
        if not is_one_line or "shows the traceback" in said:
            wrong[kind] = f"{result.exception!r} {said}"
    assert not wrong, "\n".join(f"{kind}: {said}" for kind, said in wrong.items())
