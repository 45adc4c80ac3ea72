"""Which models can be published, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.artifacts.model_files import WEIGHTS
from pipeline.config import ParameterError, Params
from pipeline.decoder.imagine import FOLDER as DECODER
from pipeline.query.fusion_diff import CONTROL, PRIOR
from pipeline.query.models import DIFFCOMP

Kind = Literal["prior", "control", "diffcomp", "decoder"]


@dataclass(frozen=True)
class Published:
    """A trained model of the project."""

    name: str
    """Its folder among those that are written."""
    kind: Kind
    folder: Path
    """Where it was trained into."""
    title: str
    what: str
    """What it is, in a sentence."""
    loader: str
    """The function of `pipeline.app.release.pretrained` that loads it."""

    @property
    def is_trained(self) -> bool:
        """Whether its weights are there."""
        return (self.folder / WEIGHTS).is_file()


def publishable(params: Params) -> dict[str, Published]:
    """The models that the parameters train, by name."""
    fixed = (
        Published(
            "prior",
            "prior",
            PRIOR,
            "Fusion-Diff: diffusion prior (Stage 1)",
            "A diffusion transformer that samples an embedding of an image from a description of it.",
            "load_prior",
        ),
        Published(
            "control-adapter",
            "control",
            CONTROL,
            "Fusion-Diff: Control-Adapter (Stage 2)",
            "Steers the prior by the joint embedding of a reference image and a modification.",
            "load_controlled_prior",
        ),
        Published(
            "decoder",
            "decoder",
            DECODER,
            "Decoder of joint embeddings",
            "Makes an image of an embedding, to show what was searched.",
            "load_decoder",
        ),
    )
    variants = (
        Published(
            name.replace("_", "-"),
            "diffcomp",
            DIFFCOMP / name,
            f"DiffComp ({name})",
            "A dual encoder of images and texts that composes a reference image and a modification.",
            "load_diffcomp",
        )
        for name in params.variants()
    )
    return {one.name: one for one in (*fixed, *variants)}


def chosen(names: list[str], params: Params) -> list[Published]:
    """The models of these names; none named: all that are trained. Raises ParameterError naming what is not there."""
    known = publishable(params)
    for name in names:
        if name not in known:
            raise ParameterError(f"model: {name!r} is not one of {', '.join(known)}")
        if not known[name].is_trained:
            raise ParameterError(f"model: {name} is not trained yet ({known[name].folder})")
    found = [known[name] for name in names] or [one for one in known.values() if one.is_trained]
    if not found:
        raise ParameterError("there is no trained model here; `dvc repro` trains them, `dvc pull` fetches them")
    return found
