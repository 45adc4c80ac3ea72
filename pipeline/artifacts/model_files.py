"""The files in the folder of a trained model. They are read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts.atomic import ArtifactError, read_json, write_atomically, write_json

WEIGHTS, CONFIG, LOG = "model.safetensors", "config.json", "training.csv"
SKIPPED = "skipped.json"
"""Stands in the folder of a model that was not trained, and says why."""


def skip_model(folder: str | Path, reason: str) -> None:
    """Note that a model was not trained.

    Args:
        folder: Replaced as a whole.
        reason: Why there is none.
    """
    with write_atomically(folder) as aside:
        aside.mkdir()
        write_json(aside / SKIPPED, {"reason": reason})


def is_skipped(folder: str | Path) -> bool:
    """Whether `skip_model` left its note here."""
    return (Path(folder) / SKIPPED).is_file()


def read_config(folder: str | Path, model: str, *keys: str) -> dict[str, Any]:
    """The configuration of a trained model.

    Args:
        folder: The model's.
        model: What it is called.
        *keys: What the configuration must have.

    Raises:
        ArtifactError: The model was not trained, its configuration is not there, or a key is missing; names it.
    """
    folder = Path(folder)
    if is_skipped(folder):
        raise ArtifactError(f"{folder}: there is no {model}: {read_json(folder / SKIPPED)['reason']}")
    config = read_json(folder / CONFIG)
    for key in keys:
        if not isinstance(config, dict) or key not in config:
            raise ArtifactError(f"{folder / CONFIG}: {key!r} is missing")
    return config
