"""What backbones and trained variants are known by, so that galleries fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import sha256_file
from pipeline.artifacts.weights import WEIGHTS
from pipeline.encoders.identity import fingerprint


def backbone_identity(backbone: str, pretrained: str = "") -> dict[str, Any]:
    """What vectors of the untouched backbone are known by."""
    return {"backbone": {"name": backbone, "pretrained": pretrained, "weights": fingerprint(backbone)}}


def variant_identity(folder: str | Path) -> dict[str, Any]:
    """What vectors of a trained variant are known by."""
    return {"diffcomp": sha256_file(Path(folder) / WEIGHTS)}
