"""Weights as safetensors with their configuration beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline.artifacts.files import ArtifactError, as_stored, read_json, write_atomically, write_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_weights(folder: str | Path, state: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Write `model.safetensors` and `config.json` into `folder`, atomically as a whole."""
    with write_atomically(folder) as aside:
        aside.mkdir()
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, aside / WEIGHTS)
        write_json(aside / CONFIG, config)


def load_weights(folder: str | Path, module: torch.nn.Module, expected: dict[str, Any] | None = None) -> dict[str, Any]:
    """Load into `module` (strictly) and return the stored configuration.

    Raises ArtifactError naming the field of `expected` that differs, or the tensor that does not fit.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    for key, value in as_stored(expected or {}).items():
        if config.get(key) != value:
            raise ArtifactError(f"{folder}: trained with {key} = {config.get(key)!r}, but {value!r} is asked for")
    try:
        state = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{folder / WEIGHTS}: not readable as safetensors ({error})") from None
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys()):
        if name not in state or name not in own:
            raise ArtifactError(f"{folder / WEIGHTS}: tensor {name!r} is {'missing' if name not in state else 'unexpected'}")
        found, wanted = tuple(state[name].shape), tuple(own[name].shape)
        if found != wanted:
            raise ArtifactError(f"{folder / WEIGHTS}: tensor {name!r} is {found}, the model wants {wanted}")
    module.load_state_dict(state)
    return config
