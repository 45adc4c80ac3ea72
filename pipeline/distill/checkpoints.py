"""Trained students on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import load_weights, save_weights
from pipeline.artifacts.model_files import read_config
from pipeline.artifacts.weights import Origin
from pipeline.config import DiffusionParams, as_dict, section_from_dict
from pipeline.distill.jumps import Jumps
from pipeline.distill.student import Limits, Student
from pipeline.fusion_diff import ControlAdapter, Diffusion, Prior, PriorSizes


def save_student(
    folder: str | Path,
    student: Student,
    jumps: Jumps,
    learned: dict[str, Any],
    log: str = "",
    origin: Origin | None = None,
) -> None:
    """Save a student with its sizes and the process of its teacher.

    Args:
        folder: Replaced as a whole.
        student: The trained model.
        jumps: What it was trained for.
        learned: Whose embeddings and texts it learned, and from which teacher.
        log: The training log as CSV.
        origin: See `save_weights`.
    """
    config = {
        "sizes": vars(student.prior.sizes),
        "diffusion": as_dict(jumps.params),
        "teacher_steps": jumps.teacher_steps,
        "limits": student.limits._asdict(),
        **learned,
    }
    save_weights(folder, student.state_dict(), config, log, origin)


def load_student(folder: str | Path, **expected: Any) -> tuple[Student, Jumps]:
    """Load a trained student.

    Args:
        folder: Where `save_student` put it.
        **expected: Fields of its configuration that must have these values.

    Returns:
        The student in evaluation mode, and the jumps that it makes.

    Raises:
        ArtifactError: None was trained, the files are damaged, or a field of `expected` differs; names it.
    """
    config = read_config(folder, "student", "sizes", "limits", "diffusion", "teacher_steps")
    prior = Prior(PriorSizes(**config["sizes"]))
    student = Student(prior, ControlAdapter(prior), Limits(**config["limits"]))
    load_weights(folder, student, expected)
    params = section_from_dict(DiffusionParams, config["diffusion"], str(folder))
    return student.eval(), Jumps(Diffusion(params, prior.sizes.dim), config["teacher_steps"])
