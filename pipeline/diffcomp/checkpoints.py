"""Trained variants on disk, and what they are known by, so that galleries fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts import load_weights, read_json, save_weights, sha256_file
from pipeline.artifacts.model_files import CONFIG, WEIGHTS
from pipeline.artifacts.weights import Origin
from pipeline.config import DiffCompParams, as_dict, section_from_dict
from pipeline.diffcomp.model import DiffComp
from pipeline.encoders.dual.interface import DualEncoder

ADDED_SINCE: Mapping[str, Any] = {
    "beta2": 0.999,
    "data": {"sources": [], "share": 1.0, "seed": 0},
    "image_size": 0,
}
"""Parameters that models may have been saved without, each with the value that means what the code did before it was
one. A new parameter of `DiffCompParams` comes in here; any other that a saved model lacks is an error."""


def save_diffcomp(folder: str | Path, model: DiffComp, log: str = "", origin: Origin | None = None) -> None:
    """Store a trained variant.

    Args:
        folder: Where to; it is replaced as a whole.
        model: All of its weights are stored, with the parameters that it was trained with.
        log: The training's log as CSV; see `save_weights`.
        origin: What the weights were made from; see `save_weights`.
    """
    save_weights(folder, model.state_dict(), {"diffcomp": as_dict(model.params)}, log, origin)


def load_diffcomp(folder: str | Path, encoder: DualEncoder) -> DiffComp:
    """Load a trained variant.

    Args:
        folder: Where `save_diffcomp` put it.
        encoder: An encoder of the same sizes, whose weights are replaced.

    Returns:
        The variant, in evaluation mode.

    Raises:
        ArtifactError: The files are damaged, or do not fit the encoder.
        ParameterError: The stored parameters are not those of a variant.
    """
    model = DiffComp(encoder, saved_params(folder))
    load_weights(folder, model)
    return model.eval()


def saved_params(folder: str | Path) -> DiffCompParams:
    """The parameters that a variant was trained with.

    Args:
        folder: Where `save_diffcomp` put it.

    Returns:
        Them; one of `ADDED_SINCE` that was not saved has its value there.

    Raises:
        ArtifactError: There is no such model.
        ParameterError: A parameter is missing, unknown, or has no such value.
    """
    stored = read_json(Path(folder) / CONFIG)["diffcomp"]
    return section_from_dict(DiffCompParams, {**ADDED_SINCE, **stored}, f"{folder}/{CONFIG}")


def variant_identity(folder: str | Path) -> dict[str, Any]:
    """What vectors of a trained variant are known by.

    Args:
        folder: Where `save_diffcomp` put it.
    """
    return {"diffcomp": sha256_file(Path(folder) / WEIGHTS)}
