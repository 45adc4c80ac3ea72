"""Checkpoints of a running training: safetensors and JSON, one at a time, replaced atomically."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.artifacts import ArtifactError, read_json, sha256_file, write_atomically, write_json
from pipeline.artifacts.atomic import as_stored, settle
from pipeline.artifacts.weights import save_tensors


class Ema:
    """Exponential moving average of the trained parameters, kept in float32."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float):
        self.decay = decay
        self.updates = 0
        self.average = {name: parameter.detach().float().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, nn.Parameter]) -> None:
        """Move the average towards the parameters."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))  # a young average follows closely
        torch._foreach_lerp_(
            list(self.average.values()), [p.detach().float() for p in parameters.values()], 1.0 - decay
        )

    @torch.no_grad()
    def copy_to(self, parameters: dict[str, nn.Parameter]) -> None:
        """Put the average in the parameters' place."""
        for name, parameter in parameters.items():
            parameter.copy_(self.average[name])


@dataclass(frozen=True)
class TrainingState:
    """What a training changes from step to step."""

    model: nn.Module
    parameters: dict[str, nn.Parameter]
    """Those that are trained, by name."""
    optimiser: Any
    ema: Ema | None


class Checkpoint:
    """The one checkpoint of a run, in `folder`. It belongs to `identity` and to nothing else."""

    TENSORS, STATE = "state.safetensors", "state.json"

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self.folder, self.identity, self.step = folder, as_stored(identity), 0

    def save(self, step: int, log: list[dict[str, float]], state: TrainingState) -> None:
        """Replace the checkpoint by one of `step`, the number of steps done."""
        ema = state.ema
        tensors = {f"parameter/{name}": parameter.detach() for name, parameter in state.parameters.items()}
        tensors |= {f"buffer/{name}": buffer for name, buffer in _kept_buffers(state.model).items()}
        for name, parameter in state.parameters.items():
            for key, value in state.optimiser.state[parameter].items():
                tensors[f"optimiser/{key}/{name}"] = torch.as_tensor(value).detach()
        if ema:
            tensors |= {f"ema/{name}": value for name, value in ema.average.items()}
        with write_atomically(self.folder) as aside:
            aside.mkdir()
            save_tensors(aside / self.TENSORS, tensors)
            pairs = [list(row.items()) for row in log]  # JSON would sort the columns
            found = {"step": step, "log": pairs, "identity": self.identity, "ema_updates": ema.updates if ema else 0}
            found["sha256"] = sha256_file(aside / self.TENSORS)
            write_json(aside / self.STATE, found | {"own_sha256": _own_hash(found)})
        self.step = step

    def load(self, into: TrainingState) -> tuple[int, list[dict[str, float]]]:
        """Bring a training to where its checkpoint is.

        Args:
            into: What is changed in place.

        Returns:
            The next step and the log so far; 0 and [] when there is no checkpoint of this identity.

        Raises:
            ArtifactError: There is one, but it is damaged or does not fit the model.
        """
        for folder in (self.folder.parent, self.folder):
            settle(folder)
        if not (self.folder / self.STATE).is_file():
            return 0, []
        state = read_json(self.folder / self.STATE)
        path, anew = self.folder / self.TENSORS, f"remove {self.folder} to start anew"
        try:
            if _own_hash(state) != state["own_sha256"]:
                raise ArtifactError(f"{self.folder / self.STATE}: does not match its own SHA-256; {anew}")
            if state["identity"] != self.identity:
                return 0, []
            if not path.is_file() or sha256_file(path) != state["sha256"]:
                raise ArtifactError(f"{path}: does not match the SHA-256 in {self.STATE}; {anew}")
            _restore(load_file(path), into)
            if into.ema:
                into.ema.updates = state["ema_updates"]
            self.step = state["step"]
            return state["step"], [dict(row) for row in state["log"]]
        except (AttributeError, KeyError, TypeError, RuntimeError) as error:
            raise ArtifactError(
                f"{self.folder}: this checkpoint does not fit the model ({error}); remove it to start anew"
            ) from None


@torch.no_grad()
def _restore(tensors: dict[str, Tensor], into: TrainingState) -> None:
    for name, parameter in into.parameters.items():
        _copy(tensors, f"parameter/{name}", parameter)
        moments = _optimiser_state(tensors, name, parameter)
        if moments:
            into.optimiser.state[parameter] = moments
    for name, buffer in _kept_buffers(into.model).items():
        _copy(tensors, f"buffer/{name}", buffer)
    for name, average in into.ema.average.items() if into.ema else ():
        _copy(tensors, f"ema/{name}", average)


def _own_hash(state: dict[str, Any]) -> str:
    """SHA-256 of the state's entries but for this one itself."""
    entries = {name: value for name, value in state.items() if name != "own_sha256"}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _copy(tensors: dict[str, Tensor], name: str, target: Tensor) -> None:
    if tensors[name].shape != target.shape:  # copy_ would broadcast
        raise RuntimeError(f"{name} is {tuple(tensors[name].shape)}, the model wants {tuple(target.shape)}")
    target.copy_(tensors[name])


def _kept_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to the model's state, such as running statistics."""
    state = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name in state}


def _optimiser_state(tensors: dict[str, Tensor], name: str, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The moments go where the parameter lives; AdamW's step counter does so only when fused.

    Empty for a parameter that no loss has used yet.
    """
    state = {}
    for key in ("step", "exp_avg", "exp_avg_sq"):
        value = tensors.get(f"optimiser/{key}/{name}")
        if value is not None:
            state[key] = value.to(parameter.device) if key != "step" or parameter.device.type == "cuda" else value
    return state
