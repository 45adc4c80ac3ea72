"""The query side: a reference image and a modification become vectors in a gallery's space.

`Method`: a row of the tables, with the space that it searches and the controls that it takes.
`Family`: methods that share models. It answers one query as it answers thousands.
`QueryVectors`: what a method makes of the queries.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # a method is told without torch
    from pipeline.encoders.image_source import ImageSource
    from pipeline.fusion_diff import TargetSampler
    from pipeline.retrieval.queries import Query
    from pipeline.retrieval.spaces import Space

Control = Literal["negative", "region", "guidance_scale", "control_scale", "hypotheses"]
"""What a person may add to a query."""

Descriptions = Sequence[Sequence[str]]
"""For each of Q queries D descriptions of the target, the likeliest first."""


class ControlError(ValueError):
    """A control that cannot be used, or that the method does not take."""


@dataclass(frozen=True)
class Controls:
    """What a person adds to a query. A scale or a number that is None is that of the parameters `retrieve`.

    Raises:
        ControlError: A value is out of range.
    """

    negative: str = ""
    """What the answer should not be."""
    negative_weight: float = 0.2
    """How far vectors are turned away from the negative text, in [0, 1]. A sampler is guided away from it instead."""
    region: Image.Image | None = None
    """Where the reference is to change: an image in mode L over the reference, 255 where it is painted."""
    guidance_scale: float | None = None
    """gamma of classifier-free guidance."""
    control_scale: float | None = None
    """delta of the Control-Adapter."""
    hypotheses: int | None = None
    """K: the targets that are sampled."""

    def __post_init__(self) -> None:
        for name, high in (("negative_weight", 1.0), ("guidance_scale", 20.0), ("control_scale", 20.0)):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0.0 <= value <= high):
                raise ControlError(f"{name}: {value} is not between 0 and {high:g}")
        if self.hypotheses is not None and not 1 <= self.hypotheses <= 64:
            raise ControlError(f"hypotheses: {self.hypotheses} is not between 1 and 64")


NO_CONTROLS = Controls()


@dataclass(frozen=True)
class Method:
    """A way to answer queries, and how tables and pages show it."""

    name: str
    label: str
    """Its name in tables, charts and menus."""
    space: str
    """The name of the space that it searches."""
    family: str
    """The name of its family in `pipeline.query.registry`."""
    group: str = "Other"
    """The heading above it in tables."""
    note: str = ""
    """What it is, in half a sentence."""
    colour: str = "#777777"
    """In charts, as #rrggbb."""
    order: int = 1_000
    """Its place in tables, the lowest first."""
    featured: bool = False
    """Whether figures show it. It is offered first in a search."""
    controls: frozenset[Control] = frozenset()
    """The controls that change its answer."""
    weights: tuple[Path, ...] = ()
    """Folders of the trained models that it needs."""

    def check(self, controls: Controls) -> None:
        """Raise ControlError for a region that the method does not take. Other controls without effect are ignored."""
        if controls.region is not None and "region" not in self.controls:
            raise ControlError(f"region: {self.name} takes none")


@dataclass(frozen=True, eq=False)
class QueryVectors:
    """What one method makes of Q queries."""

    space: str
    """The name of the space to search."""
    vectors: np.ndarray
    """[Q, d], or [Q, K, d] for K hypotheses a query. Every vector has unit length."""
    descriptions: Descriptions | None = None
    """The targets as they were described on the way; None: the method describes nothing."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Part of the work -> the time that it took."""


class Family(ABC):
    """Methods that share their models. A family keeps nothing of the queries that it answers."""

    methods: Mapping[str, Method]
    """Name -> method, in the order in which they are answered."""
    spaces: Mapping[str, Space]
    """Name -> space, for every space that a method searches."""
    samplers: Mapping[str, TargetSampler] = MappingProxyType({})
    """Method -> what samples its targets, for a family that samples. A service may put others in their place."""

    @abstractmethod
    def answer(
        self,
        queries: Sequence[Query],
        images: ImageSource,
        controls: Controls = NO_CONTROLS,
        methods: Collection[str] | None = None,
        descriptions: Descriptions | None = None,
    ) -> dict[str, QueryVectors]:
        """Embed queries, one as well as thousands.

        Args:
            queries: Q references and modifications.
            images: Holds the references.
            controls: What a person adds. They hold for all queries.
            methods: The methods to answer with; None: all of the family.
            descriptions: What an earlier family described of these queries' targets; None: a family that needs
                descriptions infers them itself.

        Returns:
            Method -> its vectors, in the order of `methods` of the family.

        Raises:
            ControlError: A method cannot use a control.
        """

    def infer_texts(  # noqa: B027 - most families need none
        self, queries: Sequence[Query], images: ImageSource
    ) -> None:
        """Let f_M write what `answer` will need of Q queries. It does nothing for a family without f_M's texts.

        A GPU has room for one large model. Where the describer keeps its texts, it can write those of all queries
        before another model takes its place.
        """

    def explain(
        self, method: str, query: Query, images: ImageSource, controls: Controls = NO_CONTROLS
    ) -> np.ndarray | None:
        """How much of the reference a method keeps, and where.

        Returns:
            [h, w] in [0, 1] over the reference's central square, 1 where all is kept; None: the method does not say.
        """
        return None

    def chosen(self, methods: Collection[str] | None, controls: Controls) -> list[str]:
        """The names of the methods to answer with, in the family's order, checked for the controls."""
        names = [name for name in self.methods if methods is None or name in methods]
        for name in names:
            self.methods[name].check(controls)
        return names
