"""Where libraries lie: beside their images, under a name, or anywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

DATABASE = "library.sqlite"
FOLDER = ".cir"
"""Where the library of a folder of images lies, unless it has a name or a place of its own."""
HOME = "CIR_HOME"
"""The environment variable that names the folder of the libraries with a name."""
_NAME = r"\w[\w.-]{0,99}"


def home() -> Path:
    """The folder of the libraries that have a name: $CIR_HOME, or `~/.local/share/cir`."""
    given = os.environ.get(HOME)
    return Path(given) if given else Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "cir"


def named(name: str) -> Path:
    """The folder of the library of this name. Raises ArtifactError for what is no name."""
    if not re.fullmatch(_NAME, name):
        from pipeline.artifacts import ArtifactError

        raise ArtifactError(f"library {name!r}: a name has letters, digits, `_`, `-` and `.`, 100 at most")
    return home() / name


def find_library(where: str | Path) -> Path | None:
    """The folder of a library that was given as such, as the folder of its images, or by its name; None: no library."""
    folder = Path(where)
    candidates = [folder, folder / FOLDER]
    if isinstance(where, str) and re.fullmatch(_NAME, where):
        candidates.append(named(where))
    return next((path for path in candidates if os.path.isfile(path / DATABASE)), None)


def list_libraries() -> list[Path]:
    """The folders of the libraries that have a name."""
    return sorted(path.parent for path in home().glob(f"*/{DATABASE}"))
