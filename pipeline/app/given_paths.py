"""`cir` works from any folder: it goes to the project's, and the paths that a person gives stay those of theirs."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config import ParameterError

PARAMS, GRAPH = "params.yaml", "dvc.yaml"
NAMES_OR_PATHS = ("image", "gallery", "region", "encoder")
"""Arguments of commands that are a path where a file or a folder has this name, and a name otherwise."""

_started_in: Path | None = None
"""The person's folder, where it is not the project's."""


def enter_project(given: Path | None = None) -> None:
    """Make the project's folder the working folder.

    Args:
        given: What `--project` names. None: the innermost folder around the working folder that is a project, if any.

    Raises:
        ParameterError: The folder that is named is no project.
    """
    global _started_in
    here = Path.cwd()
    _started_in = None
    if given is not None and not _is_project(given):
        raise ParameterError(f"{given}: not the project's folder: it has no {GRAPH} with a {PARAMS} beside it")
    found = given or next((folder for folder in (here, *here.parents) if _is_project(folder)), here)
    if (given is not None or not (here / PARAMS).is_file()) and found.resolve() != here.resolve():
        _started_in = here
        os.chdir(found)


def rebased(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose relative paths are those of the person's folder. Its defaults are the project's.

    Args:
        command: Takes paths as `Path`, as lists of them, or as one of `NAMES_OR_PATHS`.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(command).parameters.items()}

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        return command(**{name: _rebased(name, value, defaults[name]) for name, value in values.items()})

    return run


def _rebased(name: str, value: Any, default: Any) -> Any:
    if _started_in is None or value == default:
        return value
    if isinstance(value, list):
        return [_rebased(name, one, default) for one in value]
    if isinstance(value, Path):
        return _started_in / value
    if name in NAMES_OR_PATHS and isinstance(value, str) and value and os.path.exists(_started_in / value):
        return str(_started_in / value)
    return value


def _is_project(folder: Path) -> bool:
    return (folder / GRAPH).is_file() and (folder / PARAMS).is_file()
