"""Every file, module, command, option and parameter that the pages name is there."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest
import typer
import yaml

from pipeline.app.cli.main import app
from tests.docs.pages import FENCE, ROOT, TEXTS, code_spans, command_lines

FOLDERS = "ablations|bench|conf|docs|pipeline|reports|requirements|stages|sweeps|tests"
MADE = {"reports/index.html"}
"""Written by a run, and not in git."""
PLACEHOLDER = re.compile("/(?:NAME|STAGE)")
NOT_PARAMETERS = {"diffcomp.similarity", "diffcomp.order"}
"""Of metrics.json."""
COMMANDS = typer.main.get_command(app).commands
PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())

each_page = pytest.mark.parametrize("text", [pytest.param(text, id=page) for page, text in TEXTS.items()])


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)", TEXTS[page]):
        assert ((ROOT / page).parent / link).exists(), link


@each_page
def test_paths_are_there(text):
    named = {
        path.rstrip("/")
        for span in (*code_spans(text), *command_lines(text))
        for path in re.findall(rf"(?<![\w./])(?:{FOLDERS})/[\w./-]*\w", span)
    }
    assert [path for path in sorted(named - MADE) if not (ROOT / path).exists() and not PLACEHOLDER.search(path)] == []


@each_page
def test_modules_that_are_run_are_there(text):
    modules = {
        name
        for line in command_lines(text)
        for name in re.findall(r"-m ((?:bench|stages|tests)[a-z_.]*)(?![A-Z])", line)
    }
    places = {name: ROOT / name.replace(".", "/") for name in modules}
    wrong = [name for name, place in places.items() if not (place.with_suffix(".py").is_file() or place.is_dir())]
    assert wrong == []


@each_page
def test_options_of_modules_are_theirs(text):
    for line in command_lines(text):
        if found := re.search(r"-m ((?:bench|stages|tests)\.[a-z_]+)(.*)", line):
            place = ROOT / found[1].replace(".", "/")
            source = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
            for option in re.findall(r" --([a-z][\w-]*)", found[2]):
                name = option.removeprefix("no-").replace("-", "_")
                assert f"--{option}" in source or re.search(rf"\b{name}\b", source), line


@each_page
def test_names_of_code_are_real(text):
    for name in {span for span in code_spans(text) if re.fullmatch(r"pipeline(\.\w+)+", span)}:
        assert resolve(name) is not None, name


def resolve(name: str) -> Any:
    """`pipeline.room.module.Class.method` -> the object."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found
    return None


@each_page
def test_commands_of_cir_are_real(text):
    for line in command_lines(text):
        for command, rest in re.findall(r"(?:^|[|;&] *)cir ([a-z]+)([^|;&]*)", line):
            assert command in COMMANDS, line
            ways = [COMMANDS[command], *getattr(COMMANDS[command], "commands", {}).values()]
            options = {option for way in ways for parameter in way.params for option in parameter.opts}
            assert set(re.findall(r" (--[a-z][\w-]*)", rest)) <= options, line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_cir_is_described(command):
    page = TEXTS["docs/command-line.md"]
    assert f"`cir {command}`" in page
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "option":
            assert re.search(rf"{parameter.opts[0]}\b", page), parameter.opts[0]


@each_page
def test_examples_in_python_import_what_is_there(text):
    for language, body in FENCE.findall(text):
        if language == "python":
            for module, names in re.findall(r"^ *from (pipeline[\w.]*) import (.+)$", body, re.MULTILINE):
                assert [name for name in names.split(", ") if resolve(f"{module}.{name}") is None] == [], module


@each_page
def test_targets_of_make_are_real(text):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in command_lines(text):
        if found := re.match(r"make (?:\w+=\S+ )*([a-z-]+)", line):
            assert found[1] in targets, line


@each_page
def test_parameters_are_real(text):
    given = {pair for line in command_lines(text) for pair in re.findall(r"-S '?\+?([\w.]+)=(\S+)", line)}
    named = {name for name, value in given if not (ROOT / "conf" / name / f"{value}.yaml").is_file()}
    sections = "|".join(PARAMETERS)
    named |= {found[0] for span in code_spans(text) if (found := re.match(rf"(?:{sections})(?:\.(?!py\b)\w+)+", span))}
    assert [name for name in sorted(named - NOT_PARAMETERS) if not is_parameter(name)] == []


def is_parameter(name: str) -> bool:
    node: Any = PARAMETERS
    for part in name.replace("ablations.recipe.", "diffcomp.").split("."):  # what it changes of that section
        if node == {}:  # free of choice
            return True
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


@each_page
def test_stages_that_dvc_is_asked_for_are_real(text):
    stages = {"dvc.yaml": yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]}
    for folder in ("sweeps", "ablations"):
        (name, stage), *_ = yaml.safe_load((ROOT / folder / "dvc.yaml").read_text())["stages"].items()
        stages[f"{folder}/dvc.yaml"] = [f"{name}@{item}" for item in stage["foreach"]]
    for line in command_lines(text):
        for file, stage in re.findall(r"(\w+/dvc\.yaml):([\w@]+)", line):
            assert stage in stages[file], line
        for stage in re.findall(r"(?:-s|dvc commit|dvc unfreeze) ([a-z]\w+)", line):
            assert stage in stages["dvc.yaml"], line


@each_page
def test_words_are_the_fields(text):
    assert not re.findall(r"(?i)\b(?:pictures?|refused|method-[\w-]+\.md)\b", re.sub(r"`[^`]*`", "", text))


def test_files_of_the_architecture_are_there():
    table = TEXTS["docs/architecture.md"].split("## Which file holds what")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w/]+)` \| (.+) \|$", table, re.MULTILINE)
    rooms = {f"pipeline/{path.name}" for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").exists()}
    assert rooms - {folder for folder, _ in rows} == {"pipeline/compat", "pipeline/config"}
    files = [f"{folder}/{name}" for folder, cell in rows for name in re.findall(r"`([\w/]+(?:\.\w+)?)`", cell)]
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_equation_has_its_place_in_the_code():
    rows = re.findall(r"^\| ([\d, ]+) \| [^|]+ \| (`.+`) \|$", TEXTS["docs/methods/fusion-diff.md"], re.MULTILINE)
    numbers = [int(number) for cell, _ in rows for number in cell.split(",")]
    assert sorted(numbers) == list(range(1, 17))


def test_every_equation_of_diffcomp_stands_beside_its_line():
    """Equations 3, 12 and 13 are not known."""
    rows = re.findall(
        r"^\| ([^|]+) \| `(pipeline[\w.]+)` \| `(.+)` \|$", TEXTS["docs/methods/diffcomp.md"], re.MULTILINE
    )
    for _, name, line in rows:
        assert line in inspect.getsource(resolve(name)), name
    numbers = [int(cell) for cell, _, _ in rows if cell.isdigit()]
    assert numbers == [1, 2, *range(4, 12), *range(14, 21)]
