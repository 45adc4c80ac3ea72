"""Role-aware rows: a dual encoder's query vector, moved by what is to appear, what is to go, and what stays.

What they are is told without torch; `pipeline.query.roles_family` answers queries.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import ParameterError, Params
from pipeline.query import dual
from pipeline.query.interface import Method

NAME = "roles"
SUFFIX = "_roles"

METHODS: tuple[Method, ...] = ()
"""None has a label of its own: each has that of the row it moves."""


def methods(params: Params) -> tuple[Method, ...]:
    """A row for every method in `roles.methods`. Raises ParameterError for one that is no dual encoder's."""
    return tuple(_moved(base) for base in bases(params).values())


def bases(params: Params) -> dict[str, Method]:
    """Role-aware row -> the dual encoders' method that it moves. Raises ParameterError as `methods`."""
    known = {method.name: method for method in dual.methods(params)}
    for name in params.roles.methods:
        if name not in known:
            raise ParameterError(f"roles.methods: {name!r} is not one of {', '.join(known)}")
    return {name + SUFFIX: known[name] for name in params.roles.methods}


def _moved(base: Method) -> Method:
    return replace(
        base,
        name=base.name + SUFFIX,
        label=f"{base.label}, roles",
        family=NAME,
        note="moved by what is to appear, to go and to stay",
        featured=False,
        order=base.order + 1,
    )
