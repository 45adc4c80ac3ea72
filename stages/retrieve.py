"""retrieve: benchmarks, indexes and models -> data/retrieved/<benchmark>: every method's ranked lists, and what led to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts import schemas, write_table
from pipeline.config import ParameterError, as_dict, load_params
from pipeline.encoders.image_source import ImageTable
from pipeline.errors import run_stage
from pipeline.query.cirevl import CirevlQueries, ReferenceCaptions, answers_of
from pipeline.query.methods import CLIP, DualEncoderQueries, FusionDiffQueries, open_space
from pipeline.retrieval import Query, rank_queries, read_queries, target_similarities, write_rankings
from pipeline.retrieval.benchmarks import QUERY_SETS, find_benchmarks
from pipeline.retrieval.submissions import DEPTH, write_submissions
from pipeline.runtime import set_up

INDEX, FOLDER = Path("data/index"), Path("data/retrieved")


def main() -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    benchmarks = find_benchmarks()
    if params.retrieve.top_k < DEPTH and any(benchmark.private for benchmark in benchmarks):
        raise ParameterError(
            f"retrieve.top_k: {params.retrieve.top_k} is less than the {DEPTH} that the benchmarks' servers ask for"
        )
    fusion_diff, diffcomp = FusionDiffQueries.load(params), DualEncoderQueries.load(params)
    captions = ReferenceCaptions(params, fusion_diff.mllm)
    cirevl = CirevlQueries(params, captions, fusion_diff.descriptions, diffcomp.backbone, diffcomp.spaces[CLIP])
    made_by = {"retrieve": as_dict(params.retrieve), "seed": params.seed}
    for benchmark in benchmarks:
        pictures, out, similarities = ImageTable(benchmark.images), FOLDER / benchmark.name, []
        for query_set in benchmark.query_sets:
            queries = captions.with_concepts(read_queries(benchmark.path / query_set), pictures)
            for family, method, query in answers_of((fusion_diff, diffcomp, cirevl), queries, pictures):
                index = open_space(INDEX / benchmark.gallery, family, query.space, params.runtime.threads)
                top_k, fuse = params.retrieve.top_k, params.retrieve.fuse
                rankings = rank_queries(index, queries, query.vectors, top_k, fuse, benchmark.excludes_reference)
                identity = made_by | {"space": query.space, "gallery": index.manifest["gallery"]}
                write_rankings(out / QUERY_SETS[query_set] / method, method, rankings, identity)
                if not queries[0].target_ids:
                    write_submissions(out / "submissions", benchmark.public, method, queries, rankings)
                elif query_set == "queries":
                    similarities += target_similarities(index, method, queries, query.vectors, rankings, fuse)
                if query_set == "queries" and method == "fused_only" and query.vectors.ndim == 2:  # one wording a query
                    write_fused(out / "fused", queries, query.vectors, made_by)
        asked = [query.query_id for query in read_queries(benchmark.path / "queries")]
        rows = [{"query_id": query_id, "descriptions": fusion_diff.descriptions[query_id]} for query_id in asked]
        write_table(out / "descriptions", pa.Table.from_pylist(rows, schema=schemas.DESCRIPTIONS), made_by)
        write_table(out / "similarities", pa.Table.from_pylist(similarities, schema=schemas.SIMILARITIES), made_by)


def write_fused(folder: Path, queries: list[Query], vectors: np.ndarray, made_by: dict[str, Any]) -> None:
    """z_r,delta of every query: the sweeps sample from it again."""
    rows = [{"id": query.query_id, "vector": vector} for query, vector in zip(queries, vectors, strict=True)]
    write_table(folder, pa.Table.from_pylist(rows, schema=schemas.embeddings(vectors.shape[1])), made_by)


if __name__ == "__main__":
    run_stage(main)
