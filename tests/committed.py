"""Files as they are committed: what a run of the pipeline wrote over them since is not theirs to be compared with."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def committed(name: str) -> str:
    """The text of a file in the last commit; the file's own where there is no git repository."""
    shown = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True)
    return (shown.stdout if not shown.returncode else (ROOT / name).read_bytes()).decode()
