"""What a section is checked with."""

from __future__ import annotations


class ParameterError(ValueError):
    """A parameter that is unknown, of the wrong type, or does not fit the others."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ParameterError(message)
