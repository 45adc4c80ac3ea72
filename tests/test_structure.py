"""The structure of the library, held as tests: rooms in one order, no import cycles, and limits on size."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (
    "compat",
    "config",
    "errors",
    "runtime",
    "artifacts",
    "sources",
    "text",
    "encoders",
    "training",
    "backbones",
    "fusion_diff",
    "gpu",
    "distill",
    "diffcomp",
    "decoder",
    "peers",
    "retrieval",
    "query",
    "rerank",
    "experiments",
    "report",
    "app",
)
"""From the ground up. A room may import those before it, and nothing else of the library."""

MAX_LINES, MAX_FUNCTION, MAX_ARGUMENTS = 400, 60, 6
SOURCES = sorted(path for folder in ("pipeline", "stages", "bench", "tests") for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports_of(path: Path) -> Iterator[str]:
    """The modules of the library that a file names: at its top, in a function, or for its types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (member if member in MODULES else node.module for member in members)


def room_of(module: str) -> str:
    """`pipeline.query.driver` -> `query`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


LIBRARY = {name: path for name, path in MODULES.items() if name.split(".")[0] == "pipeline"}
GRAPH = {name: sorted(set(imports_of(path)) - {name}) for name, path in LIBRARY.items()}


def test_every_room_has_its_place():
    assert {room_of(name) for name in LIBRARY} - {""} == set(ROOMS)


def test_a_room_imports_only_the_rooms_below_it():
    wrong = [
        f"{name} imports {imported}"
        for name, imports in GRAPH.items()
        for imported in imports
        if room_of(name)
        and room_of(imported) != room_of(name)
        and ROOMS.index(room_of(imported)) > ROOMS.index(room_of(name))
    ]
    assert not wrong


def test_config_imports_nothing_of_the_library():
    imported = {room_of(name) for module, names in GRAPH.items() if room_of(module) == "config" for name in names}
    assert imported <= {"config"}


def test_no_module_imports_itself_through_others():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_library_never_imports_its_users():
    users = ("stages", "bench", "tests")
    assert not [name for name, imports in GRAPH.items() for other in imports if other.split(".")[0] in users]


def test_a_cycle_would_be_seen():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": ["b"], "b": ["c"], "c": ["a"]}).prepare()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path):
    text = path.read_text(encoding="utf-8")
    too_large = [f"{len(text.splitlines())} lines"] if len(text.splitlines()) > MAX_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines, arguments = node.end_lineno - node.lineno + 1, count_arguments(node)
            if lines > MAX_FUNCTION:
                too_large.append(f"{node.name}: {lines} lines")
            if arguments > MAX_ARGUMENTS and not is_exempt(node):
                too_large.append(f"{node.name}: {arguments} arguments")
    assert not too_large


def count_arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len(named) - (named[:1] in (["self"], ["cls"]))


def is_exempt(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """What another library calls: a Triton kernel, an autograd function's `forward`, a command with an option each."""
    decorators = {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}
    by_torch = node.name == "forward" and "staticmethod" in decorators
    return by_torch or any(name == "triton.jit" or name.endswith(".command") for name in decorators)
