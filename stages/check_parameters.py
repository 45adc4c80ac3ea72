"""check_parameters: every parameter is known, of its type, and fits the others.

DVC removes a stage's outputs before it runs the stage. All stages follow this one, so a wrong parameter costs none.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.artifacts import write_atomically
from pipeline.config import load_params
from pipeline.errors import run_stage

OUT = Path("data/parameters_checked")
"""Always the same, so that other parameters alone do not run `prepare` again."""


def main() -> None:
    load_params()
    with write_atomically(OUT) as unfinished:
        unfinished.write_text("Every parameter is known, of its type, and fits the others.\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
