"""Trained students on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.artifacts import ArtifactError, load_weights, read_json, save_weights, write_atomically, write_json
from pipeline.artifacts.model_files import CONFIG, SKIPPED
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
    folder = Path(folder)
    if (folder / SKIPPED).is_file():
        raise ArtifactError(f"{folder}: there is no student: {read_json(folder / SKIPPED)['reason']}")
    config = read_json(folder / CONFIG)
    try:
        sizes, limits = PriorSizes(**config["sizes"]), Limits(**config["limits"])
        params = section_from_dict(DiffusionParams, config["diffusion"], str(folder))
        jumps = Jumps(Diffusion(params, sizes.dim), config["teacher_steps"])
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / CONFIG}: not a student's configuration: {error}") from error
    prior = Prior(sizes)
    student = Student(prior, ControlAdapter(prior), limits)
    load_weights(folder, student, expected)
    return student.eval(), jumps


def skip_student(folder: str | Path, reason: str) -> None:
    """Note that there is no student.

    Args:
        folder: Replaced as a whole.
        reason: Why there is none.
    """
    with write_atomically(folder) as aside:
        aside.mkdir()
        write_json(aside / SKIPPED, {"reason": reason})
