"""Whether a command runs in the project's folder, to which the paths in its parameters are relative."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.app.cli.options import PARAMS_FILE
from pipeline.config import ParameterError, Params, load_params, with_overrides

if TYPE_CHECKING:
    from pipeline.app.search.own_encoder import OwnEncoder

GRAPH = "dvc.yaml"


def check_folder(params: Path = PARAMS_FILE) -> None:
    """Raise ParameterError with the way out when the parameters, or what they name, are in another folder.

    Args:
        params: The file that `--params` names.
    """
    here = Path.cwd()
    if params == PARAMS_FILE and not os.path.isfile(params):
        raise ParameterError(f"{here}: there is no {PARAMS_FILE}, so this is not the project's folder{_where()}")
    folder = Path(os.path.realpath(params)).parent
    if os.path.isfile(folder / GRAPH) and not os.path.isfile(GRAPH):
        raise ParameterError(f"{params}: its paths are relative to its folder; run `{_from_here(folder)}`")


def check_file_to_write(path: Path | None, option: str) -> None:
    """Raise ParameterError for a file that cannot be written, before anything is computed for it. None: no file."""
    if path is None:
        return
    if path.is_dir():
        raise ParameterError(f"{option}: {path} is a folder; name a file")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ParameterError(f"{option}: {path} cannot be written: {parent} is no folder that may be written to")


MAY_BE_EMPTY = ("--text", "--negative", "--where", "--concept", "--region")
"""Options whose empty value says none, or has a message of its own."""


def check_not_empty(arguments: Sequence[str]) -> None:
    """Raise ParameterError for an empty argument: most often a variable of a shell that is not set.

    An empty path would be the working folder, and an empty name no name.

    Args:
        arguments: Those of the command line, without the program.
    """
    for before, given in itertools.pairwise(("", *arguments)):
        option, _, value = given.partition("=") if given.startswith("--") and "=" in given else (before, "", given)
        if not value and option not in MAY_BE_EMPTY:
            where = option if option.startswith("--") else "an argument"
            raise ParameterError(f"{where} is empty; is a variable of the shell not set?")


def check_methods(
    names: Iterable[str],
    params: Path,
    encoder: OwnEncoder | None = None,
    describer: str = "",
    sampler: str | None = None,
) -> Params:
    """Raise ParameterError for a method that there is not, before torch is loaded.

    Args:
        names: What `--method` names.
        params: The file that `--params` names.
        encoder: Takes the place of the models that the parameters name.
        describer: Describes targets in the place of the parameters'; "": theirs.
        sampler: Takes the place of `retrieve.sampler`; None: that.

    Returns:
        What the file says, for `set_up`.
    """
    from pipeline.app.search.own_describer import check_described, with_describer
    from pipeline.query.registry import find_method

    read = load_params(params)
    if sampler:
        read = with_overrides(read, {"retrieve": {"sampler": sampler}}, "--sampler")
    loaded = encoder.into(read) if encoder else read
    loaded = with_describer(loaded, describer) if describer else loaded
    for name in names:
        check_described(name, loaded)
        find_method(name, loaded)
    return read


def set_up(params: Path | Params, threads: int | None = None) -> Params:
    """The parameters, with threads and seeds set. One image in a small model gains nothing from a second thread.

    Args:
        params: The file that `--params` names, or what it says.
        threads: CPU threads; None: those of the parameters.
    """
    from pipeline.runtime import set_up  # which loads torch

    if isinstance(params, Path):
        check_folder(params)
        params = load_params(params)
    params.runtime.threads = threads or params.runtime.threads
    set_up(params.runtime, params.seed)
    return params


def _from_here(project: Path) -> str:
    return f"cir --project {shlex.quote(str(project))} ..."


def _where() -> str:
    project = Path(__file__).resolve().parents[3]
    is_checkout = (project / GRAPH).is_file()
    return f"; run `{_from_here(project)}`" if is_checkout else "; name it: `cir --project FOLDER ...`"
