import random

import numpy as np
import pytest

from pipeline.retrieval.bootstrap import mean_interval, paired_difference

KINDS = ["gender"] * 150 + ["role"] * 50


def naive_interval(values, strata, samples, rng):
    """Resampling written out with lists."""
    groups = {}
    for value, kind in zip(values, strata, strict=True):
        groups.setdefault(kind, []).append(value)
    drawn = []
    for _ in range(samples):
        means = []
        for group in groups.values():
            means.append(sum(rng.choice(group) for _ in group) / len(group))
        drawn.append(100 * sum(means) / len(means))
    drawn.sort()
    return drawn[int(0.025 * samples)], drawn[int(0.975 * samples)]


def test_agrees_with_resampling_written_out():
    rng = np.random.default_rng(0)
    first, second = (rng.random(200) < 0.6).astype(float), (rng.random(200) < 0.4).astype(float)
    interval = paired_difference(first, second, KINDS, samples=2000, seed=1)
    low, high = naive_interval((first - second).tolist(), KINDS, 1000, random.Random(2))
    assert interval.low == pytest.approx(low, abs=1.5) and interval.high == pytest.approx(high, abs=1.5)
    expected = 50 * ((first - second)[:150].mean() + (first - second)[150:].mean())
    assert interval.estimate == pytest.approx(expected)
    assert interval.low < interval.estimate < interval.high


def test_the_seed_decides_and_the_order_of_kinds_does_not():
    values = np.random.default_rng(3).random(200)
    once, again = mean_interval(values, KINDS, seed=4), mean_interval(values, KINDS, seed=4)
    assert once == again != mean_interval(values, KINDS, seed=5)
    other = mean_interval(np.concatenate([values[150:], values[:150]]), KINDS[150:] + KINDS[:150], seed=4)
    assert (other.low, other.high) == pytest.approx((once.low, once.high))


def test_equal_methods_differ_by_nothing():
    hits = np.random.default_rng(6).random(200) < 0.5
    interval = paired_difference(hits, hits, KINDS)
    assert (interval.estimate, interval.low, interval.high) == (0, 0, 0)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 values for 1 queries"):
        mean_interval([1.0, 0.0], ["a"])
    with pytest.raises(ValueError, match="0 values"):
        mean_interval([], [])
    with pytest.raises(ValueError, match="0 bootstrap samples"):
        mean_interval([1.0], ["a"], samples=0)
