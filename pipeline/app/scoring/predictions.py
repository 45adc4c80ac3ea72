"""Ranked lists from files, ours or others', checked against a benchmark's annotations.

A JSON object of query id -> ranked image ids, best first. CIRCO's is the format of its server:
image ids are numbers. CIRR's may be either file of its server, told apart by `metric`, or a plain
object; from plain lists that hold all of a group's members the subset's ranking follows. A folder
with a shard set of `schemas.RANKINGS` (one method's below data/retrieved) serves as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.retrieval.benchmarks import BENCHMARKS, Benchmark, GroundTruth
from pipeline.retrieval.submissions import Lists, PredictionError
from pipeline.sources.benchmarks import AnnotatedQuery, Annotations

LARGEST_COCO_ID = 999_999
"""COCO's numbers have six digits."""


@dataclass
class Predictions:
    """Query id -> ranked ids, from one or several files."""

    ranked: Lists = field(default_factory=dict)
    subset: Lists = field(default_factory=dict)
    """Rankings within CIRR's groups and GeneCIS' small galleries where a file has them apart."""


@dataclass(frozen=True)
class AnnotatedSplit:
    """All queries of a split, with the gallery of each."""

    benchmark: Benchmark
    queries: tuple[AnnotatedQuery, ...]
    galleries: Mapping[str, frozenset[str] | None]
    """Query id -> the ids that may be answered; None: not known (CIRCO without COCO's list)."""

    @classmethod
    def of(cls, annotations: Sequence[Annotations]) -> AnnotatedSplit:
        """The split that these parts make up."""
        benchmark = BENCHMARKS[annotations[0].benchmark]
        galleries: dict[str, frozenset[str] | None] = {}
        for part in annotations:
            whole = None if part.gallery is None else frozenset(part.gallery)
            for query in part.queries:
                galleries[query.query_id] = frozenset(query.subset) if benchmark.own_galleries else whole
        return cls(benchmark, tuple(query for part in annotations for query in part.queries), galleries)

    @property
    def by_id(self) -> dict[str, AnnotatedQuery]:
        return {query.query_id: query for query in self.queries}

    @property
    def truth(self) -> GroundTruth:
        return GroundTruth(
            [query.targets for query in self.queries],
            [query.reference for query in self.queries],
            [query.category for query in self.queries],
            [query.subset for query in self.queries],
            [query.aspects for query in self.queries],
        )

    def in_order(self, lists: Lists) -> list[list[str]]:
        """The lists in the order of the queries."""
        return [lists[query.query_id] for query in self.queries]


def read_predictions(paths: Iterable[Path], benchmark: Benchmark) -> Predictions:
    """Merge files and folders of ranked lists.

    Args:
        paths: JSON files, and folders with a shard set of `schemas.RANKINGS`.
        benchmark: Says how the files write image ids, and what else they may hold.

    Raises:
        PredictionError: A file is not of the format, or answers a query that another one answers.
    """
    merged = Predictions()
    for path in paths:
        part = _from_table(path) if path.is_dir() else _from_json(path, benchmark)
        for into, lists in ((merged.ranked, part.ranked), (merged.subset, part.subset)):
            twice = [name for name in lists if name in into]
            _reject(path, "queries are answered by another file already", twice)
            into.update(lists)
    return merged


def _from_table(folder: Path) -> Predictions:
    from pipeline.retrieval.rankings import read_rankings

    answers = read_rankings(folder).by_query
    ranked = {name: list(ranking.ranked_ids) for name, ranking in answers.items()}
    return Predictions(
        ranked,
        {name: list(ranking.subset_ranked_ids) for name, ranking in answers.items() if ranking.subset_ranked_ids},
    )


def _from_json(path: Path, benchmark: Benchmark) -> Predictions:
    content = _load(path)
    try:
        within_subsets = benchmark.read_header(content)
    except PredictionError as error:
        raise PredictionError(f"{path}: {error}") from None
    _reject(
        path, "queries have no list of image ids", [name for name, ids in content.items() if not isinstance(ids, list)]
    )
    types = benchmark.id_types
    wrong = [name for name, ids in content.items() if not set(map(type, ids)) <= set(types)]
    expected = " or ".join("numbers" if kind is int else "texts" for kind in types)
    _reject(path, f"lists hold something else than {expected}", wrong)
    lists = content if types == (str,) else {name: list(map(str, ids)) for name, ids in content.items()}
    return Predictions(subset=lists) if within_subsets else Predictions(lists)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PredictionError(f"{path}: no such file")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            _reject(path, "keys occur twice", [name for name, count in counts.items() if count > 1])
        return content

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except PredictionError:
        raise
    except (ValueError, RecursionError) as error:
        raise PredictionError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise PredictionError(f"{path}: not a JSON object of query id -> ranked ids")
    return content


def check_lists(
    lists: Lists,
    split: AnnotatedSplit,
    least: Callable[[AnnotatedQuery], int],
    allowed: Callable[[AnnotatedQuery], Set[str] | None],
) -> None:
    """Check that every query has one list of enough known images.

    Args:
        lists: Query id -> ranked image ids.
        split: The queries that must be answered.
        least: How many images a query's list must have.
        allowed: Which images it may have; None: whatever COCO could have named so.

    Raises:
        PredictionError: Lists are for unknown queries or missing, or have a repeated, an unknown or too few
            images; says how many and names the first.
    """
    known, name = split.by_id, split.benchmark.name
    _reject(
        name, "predicted queries are not in the annotations", [query_id for query_id in lists if query_id not in known]
    )
    _reject(name, "queries have no prediction", [query_id for query_id in known if query_id not in lists])
    _reject(
        name,
        "queries have a list that names an image twice",
        (f"{query_id}: {_repeated(ids)}" for query_id, ids in lists.items() if len(set(ids)) != len(ids)),
    )
    strange = {query_id: _strange(ids, allowed(known[query_id])) for query_id, ids in lists.items()}
    _reject(
        name,
        "queries have a list with an image that is not in the gallery",
        (f"{query_id}: {image_id}" for query_id, image_id in strange.items() if image_id is not None),
    )
    short = {query_id: ids for query_id, ids in lists.items() if len(ids) < least(known[query_id])}
    _reject(
        name,
        "queries have too few images",
        (f"{query_id}: {len(ids)} of {least(known[query_id])}" for query_id, ids in short.items()),
    )


def _strange(ids: list[str], gallery: Set[str] | None) -> str | None:
    """The first id that is not in the gallery, or, where that is not known, no number of COCO's."""
    if gallery is None:
        return next(
            (image_id for image_id in ids if not (image_id.isdecimal() and 0 < int(image_id) <= LARGEST_COCO_ID)), None
        )
    return None if gallery >= set(ids) else next(image_id for image_id in ids if image_id not in gallery)


def _repeated(ids: list[str]) -> str:
    return next(image_id for image_id, count in Counter(ids).items() if count > 1)


def _reject(where: object, what: str, offenders: Iterable[str]) -> None:
    offenders = list(offenders)
    if offenders:
        raise PredictionError(f"{where}: {len(offenders)} {what}, the first is {offenders[0]!r}")
