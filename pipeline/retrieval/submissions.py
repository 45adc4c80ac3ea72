"""The files that the servers of CIRR and CIRCO score.

CIRR (https://cirr.cecs.anu.edu.au): one file of 50 names a query for recall, one of 3 for recall
within the subset, keyed by pair id, each with its `version` and `metric`. CIRCO
(https://circo.micc.unifi.it): one file of 50 image numbers for every query.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import write_atomically
from pipeline.retrieval.queries import Query
from pipeline.retrieval.rankings import Ranking

Lists = dict[str, list[str]]
"""Query id -> image ids, best first."""

DEPTH, SUBSET_DEPTH = 50, 3
RECALL, RECALL_SUBSET = "recall", "recall_subset"
VERSION = "rc2"
SERVERS = ("cirr", "circo")


class PredictionError(ValueError):
    """Ranked lists that cannot be scored or submitted; says how many and names the first."""


def submission_files(
    benchmark: str, name: str, ranked: Lists, subset: Lists, references: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """File name -> content. The reference is no answer of CIRR's.

    Raises PredictionError when a list is too short or names an image twice.
    """
    if benchmark == "circo":
        return {
            f"{name}.json": {
                query_id: [int(image_id) for image_id in ids] for query_id, ids in _cut(ranked, DEPTH).items()
            }
        }
    files = {}
    for metric, lists, depth in ((RECALL, ranked, DEPTH), (RECALL_SUBSET, subset, SUBSET_DEPTH)):
        without = {
            query_id: [image_id for image_id in ids if image_id != references[query_id]]
            for query_id, ids in lists.items()
        }
        files[f"{name}.{metric}.json"] = {"version": VERSION, "metric": metric, **_cut(without, depth)}
    return files


def write_submissions(
    folder: Path, benchmark: str, name: str, queries: Sequence[Query], rankings: Sequence[Ranking]
) -> list[Path]:
    """The files of one method for a split with private targets; none for a benchmark without a server."""
    if benchmark not in SERVERS:
        return []
    ranked = {ranking.query_id: list(ranking.ranked_ids) for ranking in rankings}
    subset = {ranking.query_id: list(ranking.subset_ranked_ids) for ranking in rankings}
    return write_files(
        folder,
        submission_files(benchmark, name, ranked, subset, {query.query_id: query.reference_id for query in queries}),
    )


def write_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """One line of JSON a file, the queries in order: the servers limit the size."""
    for name, content in files.items():
        with write_atomically(folder / name) as aside:
            aside.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    return [folder / name for name in files]


def _cut(lists: Lists, depth: int) -> Lists:
    short = [query_id for query_id, ids in lists.items() if len(ids) < depth or len(set(ids)) != len(ids)]
    if short:
        raise PredictionError(
            f"{len(short)} queries have fewer than {depth} images, or one twice, the first is {short[0]!r}"
        )
    return {query_id: ids[:depth] for query_id, ids in lists.items()}
