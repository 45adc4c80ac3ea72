"""What the retrieve stage writes of one benchmark: ranked lists, and what led to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts import schemas, write_table
from pipeline.config import Params, as_dict
from pipeline.encoders.image_source import ImageTable
from pipeline.query.describer import Describer, with_shared_concepts
from pipeline.query.driver import answer_all, first_descriptions, infer_all_texts
from pipeline.query.fusion_diff import FUSED_DESCRIPTION, FUSED_ONLY, FUSION_DIFF
from pipeline.query.interface import Descriptions, Family, QueryVectors
from pipeline.retrieval import Query, rank_queries, read_queries, target_similarities, write_rankings
from pipeline.retrieval.benchmarks import QUERY_SETS, BenchmarkFolder
from pipeline.retrieval.spaces import Space, open_index

QUERIES = "queries"
"""The query set that every benchmark has."""
SWEPT_FROM = (FUSED_ONLY, FUSED_DESCRIPTION)
"""Methods whose vectors are kept for sweeps."""
SAMPLED = "sampled"
"""The first target that Fusion-Diff samples for each query, which the report decodes."""


@dataclass
class BenchmarkRetrieval:
    """Answers the queries of one benchmark and writes what comes of it."""

    params: Params
    benchmark: BenchmarkFolder
    indexes: Path
    """Holds one index a space."""
    out: Path
    """Gets `rankings/<method>`, `submissions`, `descriptions`, `similarities`, and the vectors `fused_only`,
    `fused_description` and `sampled`."""
    similarities: list[dict[str, Any]] = field(default_factory=list)
    """Rows of `schemas.SIMILARITIES` so far."""

    def infer_texts(self, families: Sequence[Family], describer: Describer) -> None:
        """Let f_M write all that `run` will need. The describer keeps it.

        Args:
            families: In the order in which they are asked.
            describer: Names the shared concepts of queries without one.
        """
        images = self._images()
        for _, queries in self._query_sets(images, describer):
            infer_all_texts(families, queries, images)

    def run(self, families: Sequence[Family], describer: Describer) -> None:
        """Answer all query sets with all methods.

        Args:
            families: In the order in which they are asked.
            describer: Names the shared concepts of queries without one.

        Raises:
            ArtifactError: An index is missing, or another model embedded its gallery.
        """
        images = self._images()
        spaces = {name: space for family in families for name, space in family.spaces.items()}
        for query_set, queries in self._query_sets(images, describer):
            answers = answer_all(families, queries, images)
            for method, answer in answers.items():
                self._write_method(query_set, queries, method, answer, spaces[answer.space])
            if query_set == QUERIES:
                self._write_descriptions(queries, first_descriptions(answers.values()))
        self._write("similarities", self.similarities, schemas.SIMILARITIES)

    def _images(self) -> ImageTable:
        return ImageTable(self.benchmark.images)

    def _query_sets(self, images: ImageTable, describer: Describer) -> Iterator[tuple[str, list[Query]]]:
        """Each query set's name, and its queries with their shared concepts."""
        for query_set in self.benchmark.query_sets:
            yield query_set, with_shared_concepts(read_queries(self.benchmark.path / query_set), images, describer)

    @property
    def made_by(self) -> dict[str, Any]:
        """The parameters that every output depends on."""
        return {"retrieve": as_dict(self.params.retrieve), "seed": self.params.seed}

    def _write_method(
        self, query_set: str, queries: list[Query], method: str, answer: QueryVectors, space: Space
    ) -> None:
        """Search one space, and write a method's ranked lists."""
        benchmark, retrieve = self.benchmark.benchmark, self.params.retrieve
        index = open_index(self.indexes, space, self.params.runtime.threads)
        rankings = rank_queries(
            index, queries, answer.vectors, retrieve.top_k, retrieve.fuse, benchmark.excludes_reference
        )
        identity = self.made_by | {"space": space.name, "gallery": index.manifest["gallery"]}
        write_rankings(self.out / QUERY_SETS[query_set] / method, method, rankings, identity)
        if not queries[0].target_ids:
            benchmark.write_submissions(self.out / "submissions", method, queries, rankings)
        elif query_set == QUERIES:
            self.similarities += target_similarities(index, method, queries, answer.vectors, rankings, retrieve.fuse)
        if query_set == QUERIES and method in SWEPT_FROM and answer.vectors.ndim == 2:  # one wording a query
            self._write_vectors(method, queries, answer.vectors)
        if query_set == QUERIES and method == FUSION_DIFF:
            self._write_vectors(SAMPLED, queries, answer.vectors[:, 0])

    def _write_vectors(self, name: str, queries: Sequence[Query], vectors: np.ndarray) -> None:
        """Vectors of the queries, [Q, d]."""
        rows = [{"id": query.query_id, "vector": vector} for query, vector in zip(queries, vectors, strict=True)]
        self._write(name, rows, schemas.embeddings(vectors.shape[1]))

    def _write_descriptions(self, queries: Sequence[Query], descriptions: Descriptions | None) -> None:
        """The targets as they were described; sweeps and the report read them."""
        described = zip(queries, descriptions or [[] for _ in queries], strict=True)
        rows = [{"query_id": query.query_id, "descriptions": list(texts)} for query, texts in described]
        self._write("descriptions", rows, schemas.DESCRIPTIONS)

    def _write(self, name: str, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
        write_table(self.out / name, pa.Table.from_pylist(list(rows), schema=schema), self.made_by)
