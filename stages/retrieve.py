"""retrieve: benchmarks, indexes and models -> data/retrieved/<benchmark>.

Every method's ranked lists, and what led to them.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config import ParameterError, load_params
from pipeline.errors import run_stage
from pipeline.query.models import Models
from pipeline.query.outputs import BenchmarkRetrieval
from pipeline.query.registry import load_families
from pipeline.retrieval.benchmarks import find_benchmarks
from pipeline.retrieval.submissions import DEPTH
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
    models = Models(params)
    families = load_families(models)
    models.describer.keeps_texts = True
    retrievals = [
        BenchmarkRetrieval(params, benchmark, INDEX / benchmark.gallery, FOLDER / benchmark.name)
        for benchmark in benchmarks
    ]
    for retrieval in retrievals:  # first all that the describer has to write, then all that the embedder has to embed
        retrieval.infer_texts(families, models.describer)
    for retrieval in retrievals:
        retrieval.run(families, models.describer)


if __name__ == "__main__":
    run_stage(main)
