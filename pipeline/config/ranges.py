"""The ranges of numbers: every number among the parameters has one, which is checked when it is loaded.

A parameter's type says it: `p_cfg: Share` is a number from 0 to 1. Nothing that is not finite lies in any range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, with or without these two."""

    least: float = -math.inf
    most: float = math.inf
    without_least: bool = False
    without_most: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        above = value > self.least if self.without_least else value >= self.least
        return above and (value < self.most if self.without_most else value <= self.most)

    def __str__(self) -> str:
        if self.least == 0 and self.most == 1 and not (self.without_least or self.without_most):
            return "between 0 and 1"
        words = []
        if self.least > -math.inf:
            words.append(f"{'above' if self.without_least else 'at least'} {self.least:g}")
        if self.most < math.inf:
            words.append(f"{'below' if self.without_most else 'at most'} {self.most:.10g}")
        return " and ".join(words) or "a finite number"


Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Positive = Annotated[float, Range(0, without_least=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
PositiveShare = Annotated[float, Range(0, 1, without_least=True)]
ShareBelowOne = Annotated[float, Range(0, 1, without_most=True)]
InnerShare = Annotated[float, Range(0, 1, without_least=True, without_most=True)]
