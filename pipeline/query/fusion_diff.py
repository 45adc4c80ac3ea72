"""Fusion-Diff's methods: what f_M says by itself, the prior alone, and the prior under control.

What they are is told without torch; `pipeline.query.fusion_diff_family` answers queries.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.artifacts.model_files import is_skipped
from pipeline.config import Params
from pipeline.query.interface import Method
from pipeline.retrieval.spaces import FUSED

NAME = "fusion_diff"
PRIOR, CONTROL, STUDENT = Path("models/prior"), Path("models/control"), Path("models/student")
FUSED_ONLY, FUSED_DESCRIPTION = "fused_only", "fused_description"
"""The methods whose vectors steer sampling: z_r,delta, and half way from it to the description."""
STAGE1_ONLY, FUSION_DIFF, DESCRIPTION = "stage1_only", "fusion_diff", "description"
UNSAMPLED = (FUSED_ONLY, DESCRIPTION, FUSED_DESCRIPTION)
"""The methods that need no diffusion."""

_method = partial(Method, space=FUSED, family=NAME, group="Fusion-Diff", weights=(PRIOR,))

METHODS = (
    _method(
        FUSED_ONLY,
        "Fused only (A)",
        note="the fused query embedding, no diffusion",
        colour="#f2b8a0",
        order=50,
        weights=(),
        controls=frozenset({"negative"}),
    ),
    _method(
        DESCRIPTION,
        "Description",
        note="the embedding of the described target's text, no diffusion",
        colour="#f6d3c6",
        order=52,
        weights=(),
        controls=frozenset({"negative"}),
    ),
    _method(
        FUSED_DESCRIPTION,
        "Fused description",
        note="half way between the fused query and the description, no diffusion",
        colour="#efa88f",
        order=54,
        weights=(),
        controls=frozenset({"negative"}),
    ),
    _method(
        STAGE1_ONLY,
        "Stage 1 only (B)",
        note="the prior alone, from the described target",
        colour="#e8875f",
        order=60,
        controls=frozenset({"negative", "guidance_scale", "hypotheses"}),
    ),
    _method(
        FUSION_DIFF,
        "Fusion-Diff (C)",
        note="the prior with the Control-Adapter",
        colour="#d9481f",
        order=70,
        featured=True,
        weights=(PRIOR, CONTROL),
        controls=frozenset({"negative", "guidance_scale", "control_scale", "hypotheses"}),
    ),
)


def methods(params: Params) -> tuple[Method, ...]:
    """All methods; without the Control-Adapter's where Stage 2 was skipped, and none without an f_M."""
    if not params.embedder.path:
        return ()
    skipped = is_skipped(CONTROL)
    found = tuple(method for method in METHODS if not (skipped and method.name == FUSION_DIFF))
    if params.retrieve.sampler == "dpm":
        return found
    return tuple(method if method.name in UNSAMPLED else _distilled(method) for method in found)


def _distilled(method: Method) -> Method:
    """A student has no second branch for a negative text."""
    return replace(method, weights=(STUDENT,), controls=method.controls - {"negative"})
