"""LDRE and OSrCIR: a model that describes targets in words, asked in two more ways than CIReVL asks it.

LDRE (Yang et al., SIGIR 2024) edits several captions of the reference and searches with a weighted ensemble. OSrCIR
(Tang et al., CVPR 2025) reasons once over image and modification, without a caption between them.

What they are is told without torch; `pipeline.query.reasoning_family` answers queries.
"""

from __future__ import annotations

from functools import partial

from pipeline.config import Params
from pipeline.query.interface import Method
from pipeline.retrieval.spaces import CLIP

NAME = "reasoning"
LDRE, OSRCIR = "ldre", "osrcir"

_method = partial(Method, space=CLIP, family=NAME, group="Peers", controls=frozenset({"negative"}))

METHODS = (
    _method(LDRE, "LDRE", note="several edited captions, weighted", colour="#7c8fb0", order=48),
    _method(OSRCIR, "OSrCIR", note="one reasoning step over image and text", colour="#5f7fa8", order=49),
)


def methods(params: Params) -> tuple[Method, ...]:
    """Those that `peers.described` names, where there is an f_M that writes."""
    return tuple(method for method in METHODS if params.describer.path and method.name in params.peers.described)
