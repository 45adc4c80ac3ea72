"""Checkpoints of a running training: safetensors and JSON, one at a time, replaced atomically."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.artifacts import ArtifactError, read_json, sha256_file, write_atomically, write_json


class Ema:
    """Exponential moving average of the trained parameters, kept in float32."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float):
        self.decay = decay
        self.updates = 0
        self.average = {name: parameter.detach().float().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, nn.Parameter]) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))  # a young average follows closely
        torch._foreach_lerp_(list(self.average.values()), [p.detach().float() for p in parameters.values()], 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, parameters: dict[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(self.average[name])


class Checkpoint:
    """The one checkpoint of a run, in `folder`. It belongs to `identity` and to nothing else."""

    TENSORS, STATE = "state.safetensors", "state.json"

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self.folder, self.identity, self.step = folder, identity, 0

    def save(self, step: int, log: list[dict[str, float]], parameters: dict[str, nn.Parameter], optimiser: Any, ema: Ema | None) -> None:
        tensors = {f"parameter/{name}": parameter.detach() for name, parameter in parameters.items()}
        for number, (name, parameter) in enumerate(parameters.items()):
            for key, value in optimiser.state[parameter].items():
                tensors[f"optimiser/{key}/{name}"] = torch.as_tensor(value).detach()
        if ema:
            tensors |= {f"ema/{name}": value for name, value in ema.average.items()}
        with write_atomically(self.folder) as aside:
            aside.mkdir()
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, aside / self.TENSORS)
            state = {"step": step, "log": log, "identity": self.identity, "ema_updates": ema.updates if ema else 0}
            write_json(aside / self.STATE, state | {"sha256": sha256_file(aside / self.TENSORS)})
        self.step = step

    def load(self, parameters: dict[str, nn.Parameter], optimiser: Any, ema: Ema | None) -> tuple[int, list[dict[str, float]]]:
        """(next step, log so far); (0, []) when there is no checkpoint of this identity.

        Raises ArtifactError when there is one but its content is damaged.
        """
        if not (self.folder / self.STATE).is_file():
            return 0, []
        state = read_json(self.folder / self.STATE)
        if state["identity"] != self.identity:
            return 0, []
        path = self.folder / self.TENSORS
        if not path.is_file() or sha256_file(path) != state["sha256"]:
            raise ArtifactError(f"{path}: does not match the SHA-256 in {self.STATE}; remove {self.folder} to start anew")
        tensors = load_file(path)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"parameter/{name}"])
                optimiser.state[parameter] = _optimiser_state(tensors, name, parameter)
        if ema:
            ema.updates = state["ema_updates"]
            for name, average in ema.average.items():
                average.copy_(tensors[f"ema/{name}"])
        self.step = state["step"]
        return state["step"], state["log"]

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _optimiser_state(tensors: dict[str, Tensor], name: str, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The moments go where the parameter lives; AdamW's step counter does so only when fused."""
    state = {}
    for key in ("step", "exp_avg", "exp_avg_sq"):
        value = tensors[f"optimiser/{key}/{name}"]
        state[key] = value.to(parameter.device) if key != "step" or parameter.device.type == "cuda" else value
    return state
