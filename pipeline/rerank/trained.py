"""Whether there is a model that verifies answers. Told without torch."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import ParameterError, RerankerParams

SHIPPED = Path("models/backbones")
"""Holds the small models."""


def check_trained(params: RerankerParams) -> None:
    """Raise ParameterError, with the command that mends it, where the small reranker is named and not trained yet."""
    path = Path(params.path)
    if path.parent == SHIPPED and not path.is_dir():
        command = f"python -m stages.backbones --only {path.name}"
        raise ParameterError(f"reranker.path: {path} is not there; `{command}` trains it, on a GPU in minutes")
