"""Ranked lists from files, ours or others', checked against a benchmark's annotations.

A JSON object of query id -> ranked image ids, best first. CIRCO's is the format of its server:
image ids are numbers. CIRR's may be either file of its server, told apart by `metric`, or a plain
object; from plain lists that hold all of a group's members the subset's ranking follows. A folder
with a shard set of `schemas.RANKINGS` (one method's below data/retrieved) serves as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.retrieval.submissions import RECALL, RECALL_SUBSET, VERSION, Lists, PredictionError
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
class Asked:
    """All queries of a split, with the gallery of each."""

    benchmark: str
    queries: tuple[AnnotatedQuery, ...]
    galleries: Mapping[str, frozenset[str] | None]
    """Query id -> the ids that may be answered; None: not known (CIRCO without COCO's list)."""

    @classmethod
    def of(cls, annotations: Sequence[Annotations]) -> Asked:
        galleries: dict[str, frozenset[str] | None] = {}
        for one in annotations:
            whole = None if one.gallery is None else frozenset(one.gallery)
            for query in one.queries:
                galleries[query.query_id] = frozenset(query.subset) if one.benchmark == "genecis" else whole
        return cls(annotations[0].benchmark, tuple(query for one in annotations for query in one.queries), galleries)

    @property
    def ids(self) -> dict[str, AnnotatedQuery]:
        return {query.query_id: query for query in self.queries}


def read_predictions(paths: Iterable[Path], benchmark: str) -> Predictions:
    """Merge files and folders of ranked lists. Raises PredictionError for what is not of the format."""
    merged = Predictions()
    for path in paths:
        part = _from_table(path) if path.is_dir() else _from_json(path, benchmark)
        for into, lists in ((merged.ranked, part.ranked), (merged.subset, part.subset)):
            twice = [name for name in lists if name in into]
            _refuse(path, "queries are answered by another file already", twice)
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


def _from_json(path: Path, benchmark: str) -> Predictions:
    content = _load(path)
    metric = ""
    if benchmark == "cirr" and ("metric" in content or "version" in content):
        metric, version = content.pop("metric", None), content.pop("version", None)
        if metric not in (RECALL, RECALL_SUBSET) or version != VERSION:
            raise PredictionError(
                f"{path}: version and metric are {version!r} and {metric!r}, not {VERSION!r} and {RECALL} or {RECALL_SUBSET}"
            )
    no_lists = [name for name, ids in content.items() if not isinstance(ids, list)]
    _refuse(path, "queries have no list of image ids", no_lists)
    kinds = {"circo": (int,), "genecis": (int, str)}.get(benchmark, (str,))
    wrong = [name for name, ids in content.items() if not set(map(type, ids)) <= set(kinds)]
    _refuse(
        path,
        f"lists hold something else than {' or '.join('numbers' if kind is int else 'texts' for kind in kinds)}",
        wrong,
    )
    lists = content if kinds == (str,) else {name: list(map(str, ids)) for name, ids in content.items()}
    return Predictions(subset=lists) if metric == RECALL_SUBSET else Predictions(lists)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PredictionError(f"{path}: no such file")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            seen: set[str] = set()
            _refuse(path, "keys occur twice", [name for name, _ in pairs if name in seen or seen.add(name)])
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
    asked: Asked,
    least: Callable[[AnnotatedQuery], int],
    allowed: Callable[[AnnotatedQuery], Set[str] | None],
) -> None:
    """Refuse lists for unknown queries, missing lists, and lists with a repeated or unknown image or with too few.

    `least` says how many images a query's list must have, `allowed` which (None: whatever COCO could have named so).
    """
    known = asked.ids
    _refuse(
        asked.benchmark, "predicted queries are not in the annotations", [name for name in lists if name not in known]
    )
    _refuse(asked.benchmark, "queries have no prediction", [name for name in known if name not in lists])
    _refuse(
        asked.benchmark,
        "queries have a list that names an image twice",
        (f"{name}: {_repeated(ids)}" for name, ids in lists.items() if len(set(ids)) != len(ids)),
    )
    strange = {name: _strange(ids, allowed(known[name])) for name, ids in lists.items()}
    _refuse(
        asked.benchmark,
        "queries have a list with an image that is not in the gallery",
        (f"{name}: {image_id}" for name, image_id in strange.items() if image_id is not None),
    )
    _refuse(
        asked.benchmark,
        "queries have too few images",
        (f"{name}: {len(ids)} of {least(known[name])}" for name, ids in lists.items() if len(ids) < least(known[name])),
    )


def _strange(ids: list[str], gallery: Set[str] | None) -> str | None:
    """The first id that is not in the gallery, or, where that is not known, no number of COCO's."""
    if gallery is None:
        return next(
            (image_id for image_id in ids if not (image_id.isdecimal() and 0 < int(image_id) <= LARGEST_COCO_ID)), None
        )
    return None if gallery >= set(ids) else next(image_id for image_id in ids if image_id not in gallery)


def _repeated(ids: list[str]) -> str:
    seen: set[str] = set()
    return next(image_id for image_id in ids if image_id in seen or seen.add(image_id))


def _refuse(where: object, what: str, offenders: Iterable[str]) -> None:
    offenders = list(offenders)
    if offenders:
        raise PredictionError(f"{where}: {len(offenders)} {what}, the first is {offenders[0]!r}")
