"""Sampling with a student: one or two unguided passes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from pipeline.config import RetrieveParams
from pipeline.distill.jumps import Jumps
from pipeline.distill.student import Scales, Student
from pipeline.fusion_diff import Sampler, SamplerSettings
from pipeline.fusion_diff.prior import Modulation


@dataclass(frozen=True)
class StudentSettings(SamplerSettings):
    """Settings whose solver steps are the student's passes. Its guidance is an input and no second row."""

    @classmethod
    def from_params(cls, params: RetrieveParams) -> StudentSettings:
        """The settings that `retrieve` configures."""
        given = {field.name: getattr(params, field.name) for field in fields(cls)}
        return cls(**given | {"solver_steps": params.passes})

    @property
    def guided_steps(self) -> int:
        """None is."""
        return 0


class StudentSampler(Sampler):
    """Draws target embeddings from a student; see `Sampler`. It takes no negative texts.

    Args:
        student: Whose towers are used.
        jumps: The teacher's process.
        settings: Passes and scales.
        controlled: False: the prior's tower alone, in the teacher's place without control.

    Raises:
        ValueError: A scale is larger than those that the student learned.
    """

    def __init__(self, student: Student, jumps: Jumps, settings: StudentSettings, controlled: bool = True):
        self._student, self._jumps = student, jumps
        for name, most in student.limits._asdict().items():
            if getattr(settings, name) > most:
                given = f"{name} {getattr(settings, name)}"
                raise ValueError(f"distilled sampler: {given} is above {most:g}, the largest that it learned")
        super().__init__(student.prior, student.adapter if controlled else None, jumps, settings)

    def _modulation(self) -> Modulation:
        solver = self._jumps.solver(self.settings.solver_steps)
        start, end = solver.timesteps.to(self.device), solver.ends.to(self.device)
        given = self.settings.guidance_scale, 0.0 if self.adapter is None else self.settings.control_scale
        scales = Scales(*(torch.full(start.shape, scale, device=self.device) for scale in given))
        return self._student.modulation(start, end, scales)

    def _with(self, settings: SamplerSettings) -> StudentSampler:
        assert isinstance(settings, StudentSettings)
        return StudentSampler(self._student, self._jumps, settings, self.adapter is not None)
