"""Methods over image-text backbones: the training-free compositions, and every trained DiffComp variant.

What they are is told without torch; `pipeline.query.dual_family` answers queries.
"""

from __future__ import annotations

from functools import partial

from pipeline.config import Params
from pipeline.query.interface import Method
from pipeline.query.models import DIFFCOMP
from pipeline.retrieval.spaces import CLIP

NAME = "dual"

TRAINING_FREE = ("image_only", "text_only", "image_text", "slerp")

_training_free = partial(Method, space=CLIP, family=NAME, group="Training-free", controls=frozenset({"negative"}))
_diffcomp = partial(Method, family=NAME, controls=frozenset({"negative", "region"}))

METHODS = (
    _training_free("image_only", "Image only", note="the reference's CLIP vector", colour="#9aa0a6", order=0),
    _training_free("text_only", "Text only", note="the modification's CLIP vector", colour="#c3a97b", order=10),
    _training_free("image_text", "Image + text", note="their normalised weighted sum", colour="#7fa58a", order=20),
    _training_free("slerp", "Slerp", note="a point on the arc between them", colour="#6b8fb5", order=30),
    _diffcomp(
        "diffcomp_row1",
        "DiffComp, row 1",
        space="diffcomp_row1",
        group="DiffComp",
        note="plain patches, random masking, linear composition",
        colour="#c4bbea",
        order=80,
        weights=(DIFFCOMP / "diffcomp_row1",),
    ),
    _diffcomp(
        "diffcomp",
        "DiffComp",
        space="diffcomp",
        group="DiffComp",
        note="the paper's form: masked attention, captions",
        colour="#9d8be0",
        order=90,
        weights=(DIFFCOMP / "diffcomp",),
    ),
    _diffcomp(
        "diffcomp_relative",
        "DiffComp, relatives",
        space="diffcomp_relative",
        group="DiffComp",
        note="trained on what tells a picture from its relatives",
        colour="#6a4be0",
        order=100,
        featured=True,
        weights=(DIFFCOMP / "diffcomp_relative",),
    ),
)
"""The training-free methods, and the variants of the default parameters."""


def methods(params: Params) -> tuple[Method, ...]:
    """The training-free methods, and a method for every variant in `diffcomp_variants`."""
    known = {method.name: method for method in METHODS}
    variants = (
        known.get(name) or _diffcomp(name, name, space=name, weights=(DIFFCOMP / name,))
        for name in params.diffcomp_variants
    )
    return (*(known[name] for name in TRAINING_FREE), *variants)
