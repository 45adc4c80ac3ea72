"""What every section of the parameters is made of: typed values, choices and ranges that are checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from pipeline.config.ranges import Range


class ParameterError(ValueError):
    """A parameter that is unknown, missing, of the wrong type, or does not fit the others."""


def require(condition: bool, message: str) -> None:
    """Raise ParameterError with `message` unless the condition holds."""
    if not condition:
        raise ParameterError(message)


@dataclass(kw_only=True)
class Section:
    """A section of `params.yaml`. Its values have no defaults here: `conf/` gives every one of them.

    A parameter whose type is a `Literal` is a choice, and a number's type has a `Range`. A value that is none of its
    choices, or out of its range, is rejected when the section is made.

    Raises:
        ParameterError: A value is not one of its choices, is out of its range, or does not fit the others.
    """

    section: ClassVar[str] = ""
    """Where the section stands in `params.yaml`, such as `prior.diffusion`; messages begin with it."""

    def __post_init__(self) -> None:
        check_values(type(self), vars(self), self.section)


def check_values(section: type[Section], values: Mapping[str, Any], name: str) -> None:
    """Check the choices and the numbers among some values of a section.

    Args:
        section: The section's class.
        values: Its values, or some of them, by parameter.
        name: What the section is called in messages; empty for a section of no name.

    Raises:
        ParameterError: A value is not one of its choices, or out of its range.
    """
    for parameter, hint in get_type_hints(section, include_extras=True).items():
        if parameter not in values:
            continue
        full_name = f"{name}.{parameter}" if name else parameter
        value = values[parameter]
        if get_origin(hint) is Literal:
            require(value in get_args(hint), f"{full_name}: {value!r} is not one of {_listed(hint)}")
        elif get_origin(hint) is list and get_origin(get_args(hint)[0]) is Literal:
            allowed = get_args(hint)[0]
            wrong = [entry for entry in value if entry not in get_args(allowed)]
            require(not wrong, f"{full_name}: {wrong} are not among {_listed(allowed)}")
        else:
            _check_range(full_name, value, hint)


def _check_range(name: str, value: Any, hint: Any) -> None:
    """Check a number, or every number of a list, that has a range."""
    if get_origin(hint) is list:
        for entry in value:
            _check_range(name, entry, get_args(hint)[0])
    elif get_origin(hint) is Annotated:
        for allowed in (extra for extra in get_args(hint)[1:] if isinstance(extra, Range)):
            require(value in allowed, f"{name}: {value} is not {allowed}")


def as_dict(section: Section) -> dict[str, Any]:
    """A section as plain values, for identities and manifests."""
    return dataclasses.asdict(section)


def _listed(choices: Any) -> str:
    return ", ".join(str(choice) for choice in get_args(choices))
