"""The trained methods that the papers compare with. A new one is a line in `METHODS`.

What they are is told without torch; `pipeline.query.peers_family` answers queries.
"""

from __future__ import annotations

from pipeline.config import Params
from pipeline.query.interface import Method
from pipeline.query.models import PEERS
from pipeline.retrieval.spaces import CLIP

NAME = "peers"


def _peer(name: str, label: str, order: int, note: str, colour: str, space: str = CLIP) -> Method:
    return Method(
        name,
        label,
        space,
        NAME,
        "Peers",
        note,
        colour,
        order,
        controls=frozenset({"negative"}),
        weights=(PEERS / name,),
    )


METHODS = (
    _peer("pic2word", "Pic2Word", 41, "a word learned from images", "#b07d62"),
    _peer("searle", "SEARLE", 42, "words found for single images, distilled", "#a3906d"),
    _peer("lincir", "LinCIR", 43, "a word learned from captions alone", "#8a9a5b"),
    _peer("slerp_tat", "SlerpTAT", 44, "slerp, images tuned towards texts", "#6b8fa3", "slerp_tat"),
    _peer("pli", "PLI", 45, "tuned on masked images", "#5b8a86", "pli"),
    _peer("compodiff", "CompoDiff", 46, "a diffusion prior in CLIP's space", "#a36b8f"),
    _peer("flowcir", "FlowCIR", 47, "one step from the composition to the target", "#8f6ba3"),
)


def methods(params: Params) -> tuple[Method, ...]:
    """The methods that are trained."""
    return tuple(method for method in METHODS if method.name in params.peers.train)
