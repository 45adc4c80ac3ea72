"""Where raw inputs are while DVC runs an experiment in a workspace of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.sources.files import files_below

_EXPERIMENTS = (".dvc", "tmp", "exps")
"""Where DVC makes the workspaces of queued and temporary runs, below the project's folder."""


def bring_in(folders: Iterable[str]) -> None:
    """Link the project's raw inputs into the workspace of a queued or temporary run.

    Such a workspace has what is in Git and nothing else. Files are linked one by one, so that DVC sees their contents
    as it does in the project's folder. In the project's own folder nothing is done, and absolute paths need nothing.

    Args:
        folders: Folders of raw inputs, as the parameters name them.
    """
    here = Path.cwd()
    project = project_of(here)
    if project is None:
        return
    for folder in folders:
        source = project / folder
        if Path(folder).is_absolute() or not source.is_dir():
            continue
        for path in files_below(source):
            link = here / folder / path.relative_to(source)
            if not os.path.lexists(link):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())


def real_folders(folder: Path) -> list[Path]:
    """Where the files of a folder of raw inputs really are: there, and in the project that `bring_in` links from."""
    project = project_of(Path.cwd())
    return [folder.resolve(), *([] if project is None else [(project / folder).resolve()])]


def project_of(workspace: Path) -> Path | None:
    """The project whose experiment runs in a workspace; None: it is no such workspace."""
    parts = workspace.parts
    for place in range(len(parts) - len(_EXPERIMENTS)):
        if parts[place : place + len(_EXPERIMENTS)] == _EXPERIMENTS:
            return Path(*parts[:place])
    return None
