"""Whether there is a model that verifies answers. Told without torch."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import ParameterError, RerankerParams

SHIPPED = Path("models/backbones")
"""Holds the small models."""


def is_there(params: RerankerParams) -> bool:
    """Whether the model is there, or one that a hub has."""
    path = Path(params.path)
    return path.parent != SHIPPED or path.is_dir()


def check_trained(params: RerankerParams) -> None:
    """Raise ParameterError, with the command that mends it, where the small reranker is named and not trained yet."""
    if not is_there(params):
        path = Path(params.path)
        command = f"python -m stages.backbones --only {path.name}"
        raise ParameterError(f"reranker.path: {path} is not there; `{command}` trains it, on a GPU in minutes")
