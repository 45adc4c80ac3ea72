"""Indexes, search, protocols and training-free baselines: vectors and ids, never models."""

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.retrieval.queries import Query, read_queries
from pipeline.retrieval.rankings import Ranking, Rankings, read_rankings, write_rankings

if TYPE_CHECKING:
    from pipeline.retrieval.index import Index
    from pipeline.retrieval.opening import build_index, load_index
    from pipeline.retrieval.search import rank_queries, target_similarities

_WITH_FAISS = {
    "build_index": "opening",
    "Index": "index",
    "load_index": "opening",
    "rank_queries": "search",
    "target_similarities": "search",
}
"""Loaded when asked for: metrics need no FAISS."""

__all__ = [
    "Index",
    "Query",
    "Ranking",
    "Rankings",
    "build_index",
    "load_index",
    "rank_queries",
    "read_queries",
    "read_rankings",
    "target_similarities",
    "write_rankings",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_FAISS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_FAISS[name]}"), name)
