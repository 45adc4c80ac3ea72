"""Searches that work: what the README, the page and `cir search --help` offer to try first.

Each was chosen by running it. With the default's trained models `fusion_diff` finds the target first.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A search of the default benchmark's gallery."""

    reference: str
    """The id of the reference image."""
    text: str
    """The modification."""
    target: str
    """The id of the image that is meant."""


EXAMPLES = (
    Example("twemoji/1f9d1-200d-2708", "as a firefighter", "twemoji/1f9d1-200d-1f692"),
    Example("twemoji/2764", "in brown", "twemoji/1f90e"),
    Example("twemoji/1f44b", "with dark skin", "twemoji/1f44b-1f3ff"),
    Example("twemoji/1f468-200d-1f33e", "a woman instead", "twemoji/1f469-200d-1f33e"),
    Example("twemoji/1f552", "at six o'clock", "twemoji/1f555"),
    Example("twemoji/1f315", "as a waning crescent moon", "twemoji/1f318"),
)


def as_command(example: Example) -> str:
    """The command that searches so."""
    return f'cir search --image {example.reference} --text "{example.text}"'


def in_help(count: int = 3) -> str:
    """The first examples for a help text, a paragraph each.

    Args:
        count: The number of examples.
    """
    return "\n\n".join(["Examples over the default gallery:", *map(as_command, EXAMPLES[:count])])
