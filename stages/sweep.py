"""sweep: one inference parameter's values on the validation split -> reports/sweeps/<name>.csv.

Usage: python -m stages.sweep NAME
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.config import ParameterError, load_params
from pipeline.errors import run_stage
from pipeline.experiments.sweep import SWEPT, SweepPaths, run_sweep
from pipeline.runtime import set_up

FOLDER = Path("reports/sweeps")


def main() -> None:
    if len(sys.argv) != 2:
        raise ParameterError(f"usage: python -m stages.sweep {{{','.join(SWEPT)}}}")
    params = load_params()
    set_up(params.runtime, params.seed)
    run_sweep(sys.argv[1], params, SweepPaths.of(params.sweep.benchmark), FOLDER)


if __name__ == "__main__":
    run_stage(main)
