"""Trained variants on disk, and what they are known by, so that galleries fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.artifacts import load_weights, read_json, save_weights, sha256_file
from pipeline.artifacts.model_files import CONFIG, WEIGHTS
from pipeline.artifacts.weights import Origin
from pipeline.config import DiffCompParams, as_dict, section_from_dict
from pipeline.diffcomp.model import DiffComp
from pipeline.encoders.dual.interface import DualEncoder


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
    known = {field.name for field in dataclasses.fields(DiffCompParams)}
    stored = read_json(Path(folder) / CONFIG)["diffcomp"]
    stored = {name: value for name, value in stored.items() if name in known}
    model = DiffComp(encoder, section_from_dict(DiffCompParams, stored, f"{folder}/{CONFIG}"))
    load_weights(folder, model)
    return model.eval()


def variant_identity(folder: str | Path) -> dict[str, Any]:
    """What vectors of a trained variant are known by.

    Args:
        folder: Where `save_diffcomp` put it.
    """
    return {"diffcomp": sha256_file(Path(folder) / WEIGHTS)}
