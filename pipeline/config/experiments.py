"""`report`, `sweep` and `ablations`: what is made of the rankings, and the experiments around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.config.ranges import Count, NotNegative, Positive, Seed
from pipeline.config.section import Section, require


@dataclass(kw_only=True)
class ReportParams(Section):
    """`report`: the tables, the plots and the page."""

    section: ClassVar[str] = "report"

    bootstrap: Count
    """Resamples of the queries for a confidence interval."""
    page_megabytes: Positive
    """Bound on the page: as many queries are shown, of all kinds alike, as have room for their images."""


@dataclass(kw_only=True)
class SweepParams(Section):
    """`sweep`: values tried of gamma, delta and N (the paper's figure 5); the others stay those of `retrieve`."""

    section: ClassVar[str] = "sweep"

    benchmark: str
    """Where parameters are chosen."""
    guidance_scale: list[NotNegative]
    """Values of gamma, rising."""
    control_scale: list[NotNegative]
    """Values of delta, rising."""
    solver_steps: list[Count]
    """Values of N, rising."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("guidance_scale", "control_scale", "solver_steps"):
            values = getattr(self, name)
            require(len(values) > 0, f"sweep.{name}: there must be at least one value")
            require(values == sorted(set(values)), f"sweep.{name}: {values} does not rise from value to value")


@dataclass(kw_only=True)
class AblationParams(Section):
    """`ablations`: what the rows of `ablations/tables.yaml` share (`pipeline.experiments.ablation`)."""

    section: ClassVar[str] = "ablations"

    recipe: dict[str, Any]
    """What all of them change of `diffcomp`."""
    seeds: list[Seed]
    """Every row is trained once for each seed."""
    benchmarks: list[str]
    """What every row is scored on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "benchmarks"):
            values = getattr(self, name)
            require(
                len(set(values)) == len(values) > 0, f"ablations.{name}: {values} is empty, or holds something twice"
            )
