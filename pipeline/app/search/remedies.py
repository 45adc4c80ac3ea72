"""What a person can do about a model or an index that is missing, as commands to type."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.app.search.library_names import home
from pipeline.app.search.own_encoder import OwnEncoder
from pipeline.artifacts import ArtifactError
from pipeline.artifacts.model_files import WEIGHTS

if TYPE_CHECKING:
    from pipeline.query.interface import Method

TRAINED_BY = {"prior": "train_prior", "control": "train_control_adapter", "diffcomp": "train_diffcomp"}
"""Folder of `models/` -> the stage that trains what is in it."""


def training_command(folders: Iterable[Path]) -> str:
    """The command that trains models.

    Args:
        folders: Where their weights will be.
    """
    stages = [stage for folder in folders for name, stage in TRAINED_BY.items() if name in folder.parts]
    return shlex.join(["dvc", "repro", *dict.fromkeys(stages)])


def check_trained(method: Method) -> None:
    """Raise ArtifactError for a method without its weights. It names them and the command that trains them."""
    missing = [folder for folder in method.weights if not (folder / WEIGHTS).is_file()]
    if missing:
        where, command = ", ".join(map(str, missing)), training_command(missing)
        raise ArtifactError(f"{method.name} is not trained yet ({where}); `{command}` does it")


def index_command(folder: Path, library: Path, methods: Iterable[str] = (), encoder: OwnEncoder | None = None) -> str:
    """The command that indexes a folder.

    Args:
        folder: Holds the images.
        library: Where its library is.
        methods: What to index for; none: the usual methods.
        encoder: What to index with; None: the parameters' models.
    """
    words = ["cir", "index", str(folder)]
    if library.resolve().parent == home().resolve():
        words += ["--name", library.name]
    elif library.resolve() != (folder / ".cir").resolve():
        words += ["--out", str(library)]
    if encoder:
        words += ["--encoder", str(encoder)]
    return shlex.join([*words, *(word for method in methods for word in ("--method", method))])
