"""CIReVL: caption the reference, edit the caption, search for the resulting text.

The search runs in the space of the backbone that DiffComp starts from. The edit needs a model that follows text-only
instructions (`retrieve.edit_prompt`). The small f_M of the default profile follows none. It was taught to describe the
target from reference and modification at once. There its target description, which also conditions Fusion-Diff,
stands for the first two steps, and the row says how far text alone carries that description.

What it is is told without torch; `pipeline.query.cirevl_family` answers queries.
"""

from __future__ import annotations

from pipeline.config import Params
from pipeline.query.interface import Method
from pipeline.retrieval.spaces import CLIP

NAME = "cirevl"

METHODS = (
    Method(
        NAME,
        "CIReVL",
        CLIP,
        NAME,
        group="Training-free",
        note="text search with the described target",
        colour="#8f86a8",
        order=40,
        controls=frozenset({"negative"}),
    ),
)


def methods(params: Params) -> tuple[Method, ...]:
    """The one method, where there is an f_M to describe targets."""
    return METHODS if params.describer.path else ()
