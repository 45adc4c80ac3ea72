"""`distill`: a student that samples in one or two passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.ranges import Count, NotNegative
from pipeline.config.section import require
from pipeline.config.training import OptimiserParams


@dataclass(kw_only=True)
class DistillParams(OptimiserParams):
    """`distill`: how the student of `retrieve.sampler: distilled` is trained. Its sizes are the prior's."""

    section: ClassVar[str] = "distill"

    enabled: bool
    """Whether a student is trained."""
    solver_steps: Count
    """N: steps of the teacher's solver. At least 2, since the student may halve the way."""
    guidance_scale: NotNegative
    """The largest gamma that the student learns; the least is 0."""
    control_scale: NotNegative
    """The largest delta that the student learns; the least is 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.solver_steps >= 2, f"distill.solver_steps {self.solver_steps} is less than 2")
