"""Every protocol over every method's ranked lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.artifacts.shards import MANIFEST
from pipeline.report.names import ordered
from pipeline.retrieval import protocols
from pipeline.retrieval.benchmarks import GroundTruth
from pipeline.retrieval.benchmarks.emoji_cir import PROTOCOLS, EmojiCir
from pipeline.retrieval.bootstrap import Interval, mean_interval, paired_difference
from pipeline.retrieval.queries import Query, read_queries
from pipeline.retrieval.rankings import Ranking, read_rankings

CURVE_KS = (1, 2, 3, 5, 10, 15, 20, 30, 40, 50)
INTERVAL_K = 10


@dataclass(frozen=True)
class RankedQueries:
    """A set of queries and every method's ranked lists, in the queries' order."""

    queries: list[Query]
    by_method: dict[str, list[Ranking]]

    @classmethod
    def read(cls, queries: Path, rankings: Path) -> RankedQueries:
        """`rankings` holds one shard set a method. Raises ArtifactError when one leaves out a query."""
        rows = read_queries(queries)
        if not rows:
            raise ArtifactError(f"{queries}: no queries")
        by_method: dict[str, list[Ranking]] = {}
        for folder in sorted(path.parent for path in Path(rankings).glob(f"*/{MANIFEST}")):
            answers = read_rankings(folder)
            if answers.method in by_method:
                raise ArtifactError(f"{folder}: method {answers.method!r} is there twice")
            by_method[answers.method] = answers.aligned(rows)
        if not by_method:
            raise ArtifactError(f"{rankings}: no rankings")
        return cls(rows, {method: by_method[method] for method in ordered(by_method)})

    @property
    def kinds(self) -> list[str]:
        """Each query's category."""
        return [query.category or "all" for query in self.queries]

    @property
    def targets(self) -> list[tuple[str, ...]]:
        return [query.target_ids for query in self.queries]

    def ranked(self, method: str) -> list[tuple[str, ...]]:
        return [ranking.ranked_ids for ranking in self.by_method[method]]

    def subset_ranked(self, method: str) -> list[tuple[str, ...]]:
        return [ranking.subset_ranked_ids for ranking in self.by_method[method]]

    def hits(self, method: str, k: int = INTERVAL_K) -> np.ndarray:
        return protocols.hits(self.ranked(method), self.targets, k)


def benchmark_metrics(main: RankedQueries, genecis: RankedQueries | None = None) -> dict[str, dict[str, Any]]:
    """Method -> query kind, `mean`, `cirr`, `circo` and `genecis` -> metric -> percent, two decimals."""
    for kind in main.kinds:
        if kind in PROTOCOLS:
            raise ArtifactError(f"a query kind cannot be called {kind!r}")
    benchmark, truth = EmojiCir(), replace(GroundTruth.of(main.queries), categories=main.kinds)
    result: dict[str, dict[str, Any]] = {}
    for method in main.by_method:
        result[method] = benchmark.score(truth, main.ranked(method), main.subset_ranked(method))
        if genecis is not None and method in genecis.by_method:
            small = replace(GroundTruth.of(genecis.queries), categories=genecis.kinds)
            result[method] |= benchmark.score_small_galleries(small, genecis.subset_ranked(method))
    return rounded(result)


def recall_curves(main: RankedQueries) -> dict[str, dict[int, float]]:
    """Method -> K -> mean over kinds of R@K."""
    curves = {}
    for method in main.by_method:
        scores = protocols.recall_by_category(main.ranked(method), main.targets, main.kinds, CURVE_KS)[protocols.MEAN]
        curves[method] = {k: round(scores[f"R@{k}"], 2) for k in CURVE_KS}
    return curves


def method_intervals(main: RankedQueries, samples: int, seed: int) -> dict[str, Interval]:
    """Method -> mean over kinds of R@10 with its 95% interval over queries."""
    return {method: mean_interval(main.hits(method), main.kinds, samples, seed) for method in main.by_method}


def kind_intervals(main: RankedQueries, samples: int, seed: int) -> dict[str, dict[str, Interval]]:
    """Query kind -> method -> R@10 with its 95% interval over queries."""
    kinds = np.array(main.kinds)
    found = {method: main.hits(method) for method in main.by_method}
    return {
        kind: {
            method: mean_interval(hits[kinds == kind], kinds[kinds == kind], samples, seed)
            for method, hits in found.items()
        }
        for kind in sorted(set(main.kinds))
    }


def read_similarities(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Method -> the best target's and the best other image's cosine similarity [Q] (`schemas.SIMILARITIES`)."""
    table = ShardSet.open(folder).table().drop_null()
    methods = np.array(table["method"].to_pylist())
    target, other = (table[name].to_numpy() for name in ("target", "other"))
    return {method: (target[methods == method], other[methods == method]) for method in ordered(set(methods.tolist()))}


def claimed_orders(
    main: RankedQueries, orders: Iterable[tuple[str, str]], samples: int, seed: int
) -> dict[str, dict[str, float]]:
    """The difference in mean R@10 and its 95% interval, for the orders whose methods are there.

    Returns:
        `<upper>_above_<lower>` -> `difference`, `low`, `high`.
    """
    result = {}
    for upper, lower in orders:
        if upper in main.by_method and lower in main.by_method:
            interval = paired_difference(main.hits(upper), main.hits(lower), main.kinds, samples, seed)
            result[f"{upper}_above_{lower}"] = rounded(
                {"difference": interval.estimate, "low": interval.low, "high": interval.high}
            )
    return result


def rounded(value: Any) -> Any:
    """The same nest with every number at two decimals (and no negative zero)."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return round(value, 2) + 0.0
