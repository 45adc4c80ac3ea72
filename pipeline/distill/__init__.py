"""A student that does in one or two network calls what the guided, controlled prior does in many."""

from pipeline.distill.jumps import Jumps
from pipeline.distill.student import Limits, Scales, Student
from pipeline.distill.student_sampler import StudentSampler, StudentSettings
from pipeline.distill.task import DistillTask, Teacher

__all__ = ["DistillTask", "Jumps", "Limits", "Scales", "Student", "StudentSampler", "StudentSettings", "Teacher"]
