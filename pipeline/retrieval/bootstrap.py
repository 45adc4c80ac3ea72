"""Bootstrap intervals over queries, drawn within each stratum (query kind)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_CHUNK = 4_000_000
"""Numbers resampled at once."""


@dataclass(frozen=True)
class Interval:
    """An estimate in percent and its percentile interval."""

    estimate: float
    low: float
    high: float


def mean_interval(
    values: ArrayLike, strata: ArrayLike, samples: int = 1000, seed: int = 0, level: float = 95.0
) -> Interval:
    """100 x the mean over strata of the strata's means, resampling queries within each stratum.

    Args:
        values: Each query's outcome [Q], 0 or 1 for a hit.
        strata: Each query's kind [Q].
        samples: How many times the queries are resampled.
        seed: Decides what is drawn.
        level: How many percent of the resampled means lie in the interval.

    Raises:
        ValueError: There are no samples or no queries, or the lengths differ.
    """
    if samples < 1:
        raise ValueError(f"{samples} bootstrap samples; at least 1 is needed")
    outcomes, kinds = np.asarray(values, dtype=np.float64), np.asarray(strata)
    if outcomes.shape != kinds.shape or not len(outcomes):
        raise ValueError(f"{len(outcomes)} values for {len(kinds)} queries")
    names = np.unique(kinds)
    estimate, drawn = 0.0, np.zeros(samples)
    for number, name in enumerate(names):
        stratum = outcomes[kinds == name]
        estimate += stratum.mean()
        drawn += _resampled_means(stratum, samples, np.random.default_rng([seed, number]))
    edge = (100 - level) / 2
    low, high = np.percentile(100 * drawn / len(names), [edge, 100 - edge])
    return Interval(100 * float(estimate) / len(names), float(low), float(high))


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    strata: ArrayLike,
    samples: int = 1000,
    seed: int = 0,
    level: float = 95.0,
) -> Interval:
    """How far `first` lies above `second`, both read on the same resampled queries.

    Args:
        first: Each query's outcome [Q] of one method.
        second: The same of the other.
        strata: Each query's kind [Q].
        samples: How many times the queries are resampled.
        seed: Decides what is drawn.
        level: How many percent of the resampled differences lie in the interval.
    """
    return mean_interval(
        np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64), strata, samples, seed, level
    )


def _resampled_means(values: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Means [samples] of as many draws with replacement."""
    rows = max(1, _CHUNK // len(values))
    parts = [
        values[rng.integers(0, len(values), (min(rows, samples - start), len(values)))].mean(axis=1)
        for start in range(0, samples, rows)
    ]
    return np.concatenate(parts)
