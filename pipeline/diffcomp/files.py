"""What a trained variant is known by, so that a finished one is not trained again and galleries fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json, sha256_file
from pipeline.artifacts.weights import WEIGHTS
from pipeline.encoders.mllm import fingerprint

IDENTITY = "identity.json"
"""Written last: where it is, everything beside it is complete."""


def is_finished(folder: str | Path, identity: dict[str, Any]) -> bool:
    """Whether `folder` holds the variant of exactly this identity."""
    path = Path(folder) / IDENTITY
    return path.is_file() and read_json(path) == identity


def backbone_identity(backbone: str, pretrained: str = "") -> dict[str, Any]:
    """What vectors of the untouched backbone are known by."""
    return {"backbone": {"name": backbone, "pretrained": pretrained, "weights": fingerprint(backbone)}}


def variant_identity(folder: str | Path) -> dict[str, Any]:
    """What vectors of a trained variant are known by."""
    return {"diffcomp": sha256_file(Path(folder) / WEIGHTS)}
