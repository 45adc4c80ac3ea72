"""Indexes, search, protocols and training-free baselines: vectors and ids, never models."""

from pipeline.retrieval.baselines import BASELINES
from pipeline.retrieval.build import build_index
from pipeline.retrieval.index import Index
from pipeline.retrieval.queries import Query, read_queries
from pipeline.retrieval.rankings import Ranking, Rankings, read_rankings, write_rankings
from pipeline.retrieval.search import rank_queries, target_similarities

__all__ = [
    "BASELINES", "Index", "Query", "Ranking", "Rankings", "build_index", "rank_queries", "read_queries", "read_rankings",
    "target_similarities", "write_rankings",
]
