"""Weights as safetensors with their configuration beside them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.artifacts.atomic import (
    ArtifactError,
    as_stored,
    read_json,
    settle,
    sha256_file,
    write_atomically,
    write_json,
)
from pipeline.artifacts.model_files import CONFIG, LOG, WEIGHTS

_HASH = "sha256"
"""The configuration's entry for the weights' hash."""


def save_weights(
    folder: str | Path,
    state: dict[str, torch.Tensor],
    config: dict[str, Any],
    log: str = "",
    origin: Origin | None = None,
) -> None:
    """Write `model.safetensors`, `config.json` and the training's log, atomically as a whole.

    Whatever `folder` held before, a checkpoint for instance, goes when the weights are there, and not before.

    Args:
        folder: The model's folder.
        state: Name -> tensor.
        config: What the model is built from.
        log: The training's log as CSV; empty: there is none.
        origin: What the model was trained from, noted as well.
    """
    with write_atomically(folder) as aside:
        aside.mkdir()
        save_tensors(aside / WEIGHTS, state)
        write_json(aside / CONFIG, config | {_HASH: sha256_file(aside / WEIGHTS)})
        if log:
            (aside / LOG).write_text(log, encoding="utf-8")
        if origin:
            origin.note(aside)  # before the checkpoint goes: the hash tells whether the folder followed


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """One safetensors file. Raises OSError where the disk does not take it, as all other writing does."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # of what happened, only the message says something
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


@dataclass(frozen=True)
class Origin:
    """What trained weights come from, noted in a file outside their folder.

    A stage that is killed after its training, or before DVC has recorded what it made, need not train
    again. In the folder itself the note would make the weights of two revisions of the code differ.

    identity: parameters and data; code: the modules of `pipeline` that training went through.
    """

    path: Path
    identity: dict[str, Any]
    code: tuple[str, ...]

    def note(self, folder: Path) -> None:
        write_json(self.path, self._content(folder))

    def made(self, folder: str | Path) -> bool:
        """Whether `folder` holds the whole and undamaged weights of exactly this origin."""
        folder = Path(folder)
        settle(folder)
        try:
            return read_json(self.path) == self._content(folder)
        except (ArtifactError, OSError):
            return False

    def _content(self, folder: Path) -> dict[str, Any]:
        files = {name: sha256_file(folder / name) for name in (WEIGHTS, CONFIG, LOG)}
        return as_stored({"identity": self.identity, "code": _code_hash(self.code), "files": files})


def _code_hash(modules: tuple[str, ...]) -> str:
    """SHA-256 over the sources of these modules and packages of `pipeline`."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for module in modules:
        for path in sorted((root / module).rglob("*.py")) if (root / module).is_dir() else [root / f"{module}.py"]:
            digest.update(f"{path.relative_to(root).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def load_weights(folder: str | Path, module: torch.nn.Module, expected: dict[str, Any] | None = None) -> dict[str, Any]:
    """Load into `module` (strictly) and return the stored configuration.

    Raises ArtifactError naming the field of `expected` that differs, or the tensor that does not fit.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise ArtifactError(f"{folder / CONFIG}: not a JSON object")
    for key, value in as_stored(expected or {}).items():
        if config.get(key) != value:
            raise ArtifactError(f"{folder}: trained with {key} = {config.get(key)!r}, but {value!r} is asked for")
    if not (folder / WEIGHTS).is_file() or sha256_file(folder / WEIGHTS) != config.pop(_HASH, None):
        raise ArtifactError(f"{folder / WEIGHTS}: missing, or it does not match the SHA-256 in {CONFIG}")
    try:
        state = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{folder / WEIGHTS}: not readable as safetensors ({error})") from None
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys()):
        if name not in state or name not in own:
            raise ArtifactError(
                f"{folder / WEIGHTS}: tensor {name!r} is {'missing' if name not in state else 'unexpected'}"
            )
        found, wanted = tuple(state[name].shape), tuple(own[name].shape)
        if found != wanted:
            raise ArtifactError(f"{folder / WEIGHTS}: tensor {name!r} is {found}, the model wants {wanted}")
    module.load_state_dict(state)
    return config
