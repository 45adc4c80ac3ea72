"""The registry of methods. A new method is one module here in `pipeline.query`, and one line in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from pipeline.artifacts.weights import WEIGHTS
from pipeline.config import ParameterError, Params
from pipeline.query import cirevl, dual, fusion_diff
from pipeline.query.interface import Family, Method
from pipeline.query.models import Models
from pipeline.query.spaces import ModelSpace


class FamilyModule(Protocol):
    """What the module of a family defines."""

    @property
    def METHODS(self) -> Sequence[Method]:  # noqa: N802 - a constant of a module
        """The methods that have a label, whether they are configured or not."""

    def methods(self, params: Params) -> Sequence[Method]:
        """The methods that these parameters configure."""

    def spaces(self, models: Models) -> dict[str, ModelSpace]:
        """The spaces of the methods, by name. No model is opened before it embeds."""

    def load(self, models: Models, only: Collection[str] | None = None) -> Family:
        """Load what the methods in `only` need; None: all of them."""


FAMILIES: dict[str, FamilyModule] = {
    fusion_diff.NAME: fusion_diff,
    dual.NAME: dual,
    cirevl.NAME: cirevl,
}
"""Name -> module, in the order in which queries are answered: descriptions are passed on to later families."""


def methods(params: Params) -> dict[str, Method]:
    """All configured methods, by name, in the order in which they are answered."""
    return {method.name: method for module in FAMILIES.values() for method in module.methods(params)}


def labelled_methods() -> dict[str, Method]:
    """All methods that have a label, by name, in the order of tables."""
    known = [method for module in FAMILIES.values() for method in module.METHODS]
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
    return {name: space for module in FAMILIES.values() for name, space in module.spaces(models).items()}


def load_family(method: Method, models: Models) -> Family:
    """The family of one method, with what this method needs."""
    return FAMILIES[method.family].load(models, only=[method.name])


def load_families(models: Models) -> list[Family]:
    """All families, complete, in the order in which they are asked."""
    return [module.load(models) for module in FAMILIES.values()]
