"""From plain values to sections: OmegaConf finds unknown, ill-typed and missing parameters.

The sections check the rest. OmegaConf takes no `Literal`, so what it sees of a section is its schema: the same
fields, all mandatory, with a choice as the string or the number that it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.section import ParameterError, Section, as_dict, check_values

S = TypeVar("S", bound=Section)


def section_from_dict(kind: type[S], values: Mapping[str, Any], origin: str) -> S:
    """A section of plain values.

    Args:
        kind: The section's class.
        values: Every parameter's value, sections in it as mappings.
        origin: Where the values come from; messages of OmegaConf's findings begin with it.

    Returns:
        The section, its values converted to their types.

    Raises:
        ParameterError: A parameter is unknown, missing, of the wrong type, or does not fit the others.
    """
    merged = OmegaConf.structured(_schema(kind))
    for name, value in values.items():  # one by one, so that a message names the parameter
        try:
            merged.merge_with({name: value})
        except OmegaConfBaseException as error:
            raise ParameterError(f"{origin}: parameter {_parameter(error) or name!r}: {_first_line(error)}") from None
    return _made(kind, cast(DictConfig, merged), origin)


def with_overrides(section: S, values: Mapping[str, Any], origin: str) -> S:
    """A section with some of its values changed.

    Args:
        section: The section, which stays as it is.
        values: The new values by parameter.
        origin: What the values are called in messages.

    Returns:
        A new section.

    Raises:
        ParameterError: A value is wrong; the message names it after `origin`.
    """
    kind = type(section)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(_schema(kind)), as_dict(section), dict(values))
    except OmegaConfBaseException as error:
        raise ParameterError(f"parameter '{origin}.{_parameter(error) or '?'}': {_first_line(error)}") from None
    try:
        return _made(kind, cast(DictConfig, merged), origin)
    except ParameterError as error:
        raise ParameterError(f"{origin}: {error}") from None


def _made(kind: type[S], merged: DictConfig, origin: str) -> S:
    """The section of merged values. What is there is checked first: it is named even where other values are missing."""
    try:
        values = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))
    except OmegaConfBaseException as error:  # an interpolation
        raise ParameterError(f"{origin}: parameter {_parameter(error)!r}: {_first_line(error)}") from None
    _check_given_values(kind, values)
    missing = _missing(kind, values)
    if missing:
        raise ParameterError(f"{origin}: {len(missing)} parameters are missing, the first is {missing[0]!r}")
    return _section(kind, values)


def _section(kind: type[S], values: dict[str, Any]) -> S:
    inner = _inner_sections(kind)
    return kind(**{name: _section(inner[name], value) if name in inner else value for name, value in values.items()})


def _check_given_values(kind: type[Section], values: dict[str, Any]) -> None:
    given = {name: value for name, value in values.items() if value != MISSING}
    check_values(kind, given, kind.section)
    for name, inner in _inner_sections(kind).items():
        if name in given:
            _check_given_values(inner, given[name])


def _missing(kind: type[Section], values: dict[str, Any], prefix: str = "") -> list[str]:
    """The full names of what no value was given for; a section of which none was given counts once."""
    missing = [prefix + name for name, value in values.items() if value == MISSING]
    for name, inner in _inner_sections(kind).items():
        if values[name] != MISSING:
            missing += _missing(inner, values[name], f"{prefix}{name}.")
    return missing


def _inner_sections(kind: type[Section]) -> dict[str, type[Section]]:
    hints = get_type_hints(kind)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(kind)
        if dataclasses.is_dataclass(hints[field.name])
    }


def _schema(kind: type[Section]) -> type:
    """The section as OmegaConf takes it."""
    hints = get_type_hints(kind)
    fields = [(field.name, _plain(hints[field.name])) for field in dataclasses.fields(kind)]
    return dataclasses.make_dataclass(kind.__name__, fields)


def _plain(hint: Any) -> Any:
    """A type without choices: `Literal["a", "b"]` -> str, of lists and inner sections too."""
    if get_origin(hint) is Literal:
        return type(get_args(hint)[0])
    if get_origin(hint) is list:
        return list[_plain(get_args(hint)[0])]  # type: ignore[misc]  # the type is computed
    return _schema(hint) if isinstance(hint, type) and issubclass(hint, Section) else hint


def _parameter(error: OmegaConfBaseException) -> str:
    return str(error.full_key or error.key or "")


def _first_line(error: OmegaConfBaseException) -> str:
    return str(error).splitlines()[0]
