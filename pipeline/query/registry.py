"""The registry of methods. A new method is an entry in `FAMILIES`.

Methods are told without torch, so that a wrong name is told at once. What answers queries is imported when it is
opened, and nothing of other families with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pipeline.artifacts.model_files import WEIGHTS
from pipeline.config import ParameterError, Params
from pipeline.query import cirevl, dual, fusion_diff, peers, reasoning, roles
from pipeline.query.interface import Family, Method
from pipeline.query.models import Models

if TYPE_CHECKING:
    from pipeline.query.spaces import ModelSpace


class MethodsModule(Protocol):
    """What tells of a family's methods, without torch."""

    @property
    def METHODS(self) -> Sequence[Method]:  # noqa: N802 - a constant of a module
        """The methods that have a label, whether they are configured or not."""

    def methods(self, params: Params) -> Sequence[Method]:
        """The methods that these parameters configure."""


class FamilyModule(Protocol):
    """What opens a family's models."""

    def spaces(self, models: Models) -> dict[str, ModelSpace]:
        """The spaces of the methods, by name. No model is opened before it embeds."""

    def load(self, models: Models, only: Collection[str] | None = None) -> Family:
        """Load what the methods in `only` need; None: all of them."""


class Registered(NamedTuple):
    """A family: what tells of its methods, and what imports the module that opens its models."""

    told: MethodsModule
    opened: Callable[[], FamilyModule]


def _fusion_diff() -> FamilyModule:
    from pipeline.query import fusion_diff_family

    return fusion_diff_family


def _dual() -> FamilyModule:
    from pipeline.query import dual_family

    return dual_family


def _cirevl() -> FamilyModule:
    from pipeline.query import cirevl_family

    return cirevl_family


def _peers() -> FamilyModule:
    from pipeline.query import peers_family

    return peers_family


def _reasoning() -> FamilyModule:
    from pipeline.query import reasoning_family

    return reasoning_family


def _roles() -> FamilyModule:
    from pipeline.query import roles_family

    return roles_family


FAMILIES = {
    fusion_diff.NAME: Registered(fusion_diff, _fusion_diff),
    dual.NAME: Registered(dual, _dual),
    cirevl.NAME: Registered(cirevl, _cirevl),
    peers.NAME: Registered(peers, _peers),
    reasoning.NAME: Registered(reasoning, _reasoning),
    roles.NAME: Registered(roles, _roles),
}
"""By name, in the order in which queries are answered: descriptions are passed on to later families."""


def methods(params: Params) -> dict[str, Method]:
    """All configured methods, by name, in the order in which they are answered."""
    return {method.name: method for family in FAMILIES.values() for method in family.told.methods(params)}


def labelled_methods() -> dict[str, Method]:
    """All methods that have a label, by name, in the order of tables."""
    known = [method for family in FAMILIES.values() for method in family.told.METHODS]
    return {method.name: method for method in sorted(known, key=lambda method: (method.order, method.name))}


def find_method(name: str, params: Params) -> Method:
    """A configured method. Raises ParameterError for another name."""
    known = methods(params)
    if name not in known:
        raise ParameterError(f"method: {name!r} is not one of {', '.join(known)}")
    return known[name]


def by_interest(found: Collection[Method]) -> list[Method]:
    """Methods as a search offers them: the featured ones, then the others from the last row of the tables up."""
    ordered = sorted(found, key=lambda method: method.order)
    featured = [method for method in ordered if method.featured]
    return featured + [method for method in reversed(ordered) if not method.featured]


def is_trained(method: Method) -> bool:
    """Whether the weights that a method needs are there."""
    return all((folder / WEIGHTS).is_file() for folder in method.weights)


def spaces(models: Models) -> dict[str, ModelSpace]:
    """The spaces of all configured methods, by name."""
    return {name: space for family in FAMILIES.values() for name, space in family.opened().spaces(models).items()}


def load_family(method: Method, models: Models) -> Family:
    """The family of one method, with what this method needs."""
    return FAMILIES[method.family].opened().load(models, only=[method.name])


def load_families(models: Models) -> list[Family]:
    """All families, complete, in the order in which they are asked."""
    return [family.opened().load(models) for family in FAMILIES.values()]
