"""`rerank`: which answers are verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.ranges import Count, Share
from pipeline.config.section import Section


@dataclass(kw_only=True)
class RerankParams(Section):
    """`rerank`: the stage after `retrieve`, and the defaults of a search with `--rerank`."""

    section: ClassVar[str] = "rerank"

    methods: list[str]
    """The methods whose answers are verified; none: the stage does nothing."""
    top: Count
    """K: the first answers of a query that are verified."""
    weight: Share
    """How much the probability of yes counts, and 1 - weight the first score, scaled to [0, 1] among the K."""
