"""What steers on the training triplets: Stage 2 learns by it, and so does a student."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import ControlSignal
from pipeline.fusion_diff.anchor import FusedDescriptions
from pipeline.fusion_diff.conditions import Vectors
from pipeline.fusion_diff.tables import Ids, check_same_ids, open_vectors

FUSED = Path("data/fused")
QUERIES, TARGETS, TEXTS, DESCRIPTIONS = (
    FUSED / f"triplets_{name}" for name in ("query", "target", "text", "description")
)


def open_steering(signal: ControlSignal) -> tuple[Ids, Vectors]:
    """The triplets' ids and their control vectors [N, d].

    Args:
        signal: As `control.signal`.

    Raises:
        ArtifactError: The tables do not belong together.
    """
    ids, control, _ = open_vectors(QUERIES)  # z_r,delta
    if signal == "fused_description":
        described_ids, descriptions, _ = open_vectors(DESCRIPTIONS)
        check_same_ids(DESCRIPTIONS, described_ids, ids)
        control = FusedDescriptions(control, descriptions)
    return ids, control
