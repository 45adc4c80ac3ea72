"""`report`, `sweep` and `ablations`: what is made of the rankings, and the experiments around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.config.section import Section, require


@dataclass(kw_only=True)
class ReportParams(Section):
    """`report`: the tables, the plots and the page."""

    section: ClassVar[str] = "report"

    bootstrap: int
    """Resamples of the queries for a confidence interval."""
    page_megabytes: float
    """Bound on the page: as many queries are shown, of all kinds alike, as have room for their images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.bootstrap > 0, f"report.bootstrap: {self.bootstrap} is not positive")
        require(self.page_megabytes > 0, f"report.page_megabytes: {self.page_megabytes} is not positive")


@dataclass(kw_only=True)
class SweepParams(Section):
    """`sweep`: values tried of gamma, delta and N (the paper's figure 5); the others stay those of `retrieve`."""

    section: ClassVar[str] = "sweep"

    benchmark: str
    """Where parameters are chosen."""
    guidance_scale: list[float]
    """Values of gamma, rising."""
    control_scale: list[float]
    """Values of delta, rising."""
    solver_steps: list[int]
    """Values of N, rising."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("guidance_scale", 0.0), ("control_scale", 0.0), ("solver_steps", 1)):
            values = getattr(self, name)
            require(
                len(values) > 0 and min(values) >= least,
                f"sweep.{name}: {values} is not a list of numbers of at least {least}",
            )
            require(values == sorted(set(values)), f"sweep.{name}: {values} does not rise from value to value")


@dataclass(kw_only=True)
class AblationParams(Section):
    """`ablations`: what the rows of `ablations/tables.yaml` share (`pipeline.experiments.ablation`)."""

    section: ClassVar[str] = "ablations"

    recipe: dict[str, Any]
    """What all of them change of `diffcomp`."""
    seeds: list[int]
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
