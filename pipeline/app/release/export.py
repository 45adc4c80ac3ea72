"""`cir export`: trained models as folders in the layout of a hub's repositories."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.app.release.card import card_of
from pipeline.app.release.models import Published
from pipeline.artifacts import ArtifactError, read_json, sha256_file, write_atomically
from pipeline.artifacts.model_files import CONFIG, LOG, WEIGHTS
from pipeline.config import Params

BACKBONE = "backbone"
"""The folder of an encoder that no hub has, beside the weights that take its place."""


def export(models: list[Published], out: Path, params: Params, licence: str) -> list[Path]:
    """Write models.

    Args:
        models: Which ones. Their weights are there.
        out: Gets a folder each; a folder that is there is replaced when the new one is whole.
        params: What they were trained by.
        licence: Of the weights, as hubs name it.

    Returns:
        The folders.

    Raises:
        ArtifactError: A model is damaged, or the folder in its place is not one that `cir export` has written.
    """
    folders = []
    for model in models:
        folder = out / model.name
        if folder.exists() and not (folder / CONFIG).is_file():
            raise ArtifactError(f"{folder}: is there, and holds no model; choose another folder")
        if read_json(model.folder / CONFIG).get("sha256") != sha256_file(model.folder / WEIGHTS):
            raise ArtifactError(f"{model.folder / WEIGHTS}: it does not match the SHA-256 in {CONFIG}")
        card = card_of(model, params, licence)
        with write_atomically(folder) as aside:
            aside.mkdir(parents=True)
            for name in (WEIGHTS, CONFIG, LOG):
                if (model.folder / name).is_file():
                    shutil.copy(model.folder / name, aside / name)
            (aside / WEIGHTS).chmod(0o644)
            (aside / "README.md").write_text(card, encoding="utf-8")
            backbone = Path(str(params.variants()[model.folder.name].backbone)) if model.kind == "diffcomp" else None
            if backbone and backbone.is_dir():
                shutil.copytree(backbone, aside / BACKBONE, ignore=shutil.ignore_patterns(LOG))
        folders.append(folder)
    return folders
