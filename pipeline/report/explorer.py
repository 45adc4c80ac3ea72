"""The queries that a reader can look through: every rank, and as many queries with images as there is room for."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.metrics import RankedQueries
from pipeline.report.names import describe, kind_label
from pipeline.report.samples import featured, mixed_order
from pipeline.report.thumbnails import SMALL, load_images, webp

TOP = 10
"""RankedQueries a method shown for a query."""
TARGETS = 10
"""Targets shown for a query."""
SMALLEST = 600
"""Bytes that no inlined image stays below; bounds how many are decoded."""
IS_TARGET, NOTHING = 0x8000, 0x7FFF
"""In `answers`: the bit that best_and_second a target, and the image number where a list has ended."""


def explorer(
    answers: RankedQueries, images: Path, descriptions: Mapping[str, str], seed: int, budget: int
) -> dict[str, Any]:
    """What the page's script reads, in at most about `budget` bytes of JSON.

    Args:
        answers: The queries and every method's answers.
        images: The shard set of their images.
        descriptions: Query id -> the target description that was inferred for it.
        seed: Decides the queries' order.
        budget: Bytes.

    Queries come in a mixed order (see `mixed_order`); `ranks` holds every one of them, `queries`,
    `images` and `answers` the first ones, whose images fit.
    """
    order, methods = mixed_order(answers, seed), list(answers.by_method)
    kinds = sorted(set(answers.kinds))
    data = {
        "methods": [{"key": method, "label": describe(method).label} for method in methods],
        "pair": _pair(answers),
        "kinds": [kind_label(kind) for kind in kinds],
        "listed": _listed(answers),
        "kind": _packed(kinds.index(answers.kinds[row]) for row in order),
        "ranks": [_packed(_rank(answers, method, row) for row in order) for method in methods],
    }
    data["queries"], data["pictures"], data["answers"] = _with_images(
        answers, images, descriptions, order, budget - _size(data)
    )
    return data


def _with_images(
    answers: RankedQueries,
    images: Path,
    descriptions: Mapping[str, str],
    order: list[int],
    budget: int,
) -> tuple[list[list[Any]], list[list[str]], str]:
    """Queries, (id, WebP in base64) of their images, and [queries, methods, TOP] image numbers, packed."""
    thumbnails = load_images(images, _needed(answers, order, budget // SMALLEST), SMALL)
    numbers: dict[str, int] = {}
    shown, queries, listed = [], [], []
    for row in order:
        names = _names(answers, row)
        if any(name not in thumbnails for name in names):
            break
        new = [
            [name, base64.b64encode(webp(thumbnails[name])).decode("ascii")] for name in names if name not in numbers
        ]
        query = _query(answers, row, descriptions)
        budget -= _size(new) + _size(query) + 3 * len(answers.by_method) * TOP  # two bytes an answer, in base64
        if budget < 0 or len(numbers) + len(new) > NOTHING:
            break
        numbers |= {name: number for number, (name, _) in enumerate(new, start=len(numbers))}
        shown += new
        query[0], query[3] = numbers[query[0]], [numbers[name] for name in query[3]]
        queries.append(query)
        listed += [number for method in answers.by_method for number in _answer(answers, method, row, numbers)]
    return queries, shown, _packed(listed)


def _query(answers: RankedQueries, row: int, descriptions: Mapping[str, str]) -> list[Any]:
    """Reference, text, inferred description, targets shown, and how many more there are."""
    query = answers.queries[row]
    more = max(0, len(query.target_ids) - TARGETS)
    return [
        query.reference_id,
        query.text,
        descriptions.get(query.query_id, ""),
        list(query.target_ids[:TARGETS]),
        more,
    ]


def _answer(answers: RankedQueries, method: str, row: int, numbers: Mapping[str, int]) -> list[int]:
    targets = answers.queries[row].target_ids
    shown = [
        numbers[name] | (IS_TARGET if name in targets else 0)
        for name in answers.by_method[method][row].ranked_ids[:TOP]
    ]
    return shown + [NOTHING] * (TOP - len(shown))


def _names(answers: RankedQueries, row: int) -> list[str]:
    """The images that a query shows, each once, in the order of their first place."""
    query = answers.queries[row]
    names = [query.reference_id, *query.target_ids[:TARGETS]]
    for rankings in answers.by_method.values():
        names += rankings[row].ranked_ids[:TOP]
    return list(dict.fromkeys(names))


def _needed(answers: RankedQueries, order: list[int], most: int) -> set[str]:
    """The images of the first queries, up to about `most`."""
    needed: set[str] = set()
    for row in order:
        if len(needed) >= most:
            break
        needed.update(_names(answers, row))
    return needed


def _pair(answers: RankedQueries) -> list[int]:
    """The two methods compared at first; the second is -1 where there is one alone."""
    methods, chosen = list(answers.by_method), featured(answers)
    others = [method for method in reversed(methods) if method != chosen[0]]
    second = (chosen[1:] or others or [""])[0]
    return [methods.index(chosen[0]), methods.index(second) if second else -1]


def _listed(answers: RankedQueries) -> int:
    return max(len(ranking.ranked_ids) for rankings in answers.by_method.values() for ranking in rankings)


def _rank(answers: RankedQueries, method: str, row: int) -> int:
    """The place of the first target, 0 where none is listed."""
    targets = answers.queries[row].target_ids
    return next(
        (place for place, name in enumerate(answers.by_method[method][row].ranked_ids, start=1) if name in targets), 0
    )


def _packed(numbers: Iterable[int]) -> str:
    """Little-endian 16-bit numbers in base64."""
    return base64.b64encode(np.fromiter(numbers, dtype="<u2").tobytes()).decode("ascii")


def _size(value: Any) -> int:
    """About the bytes of its JSON."""
    if isinstance(value, str):
        return len(value.encode()) + 4
    if isinstance(value, dict):
        return sum(_size(key) + _size(entry) for key, entry in value.items())
    if isinstance(value, list):
        return 4 + sum(_size(entry) for entry in value)
    return 8
