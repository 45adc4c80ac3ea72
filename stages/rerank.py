"""rerank: ranked lists, images and a multimodal LLM -> data/reranked/<benchmark>.

The answers of the methods in `rerank.methods`, verified and put into their new order.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.config import Params, load_params
from pipeline.errors import run_stage
from pipeline.query.registry import find_method
from pipeline.rerank.trained import check_trained

RETRIEVED, FOLDER = Path("data/retrieved"), Path("data/reranked")


def main() -> None:
    params = load_params()
    for method in params.rerank.methods:
        find_method(method, params)
    if params.rerank.methods:
        check_trained(params.reranker)
    shutil.rmtree(FOLDER, ignore_errors=True)  # it may hold methods that are not reranked any more
    FOLDER.mkdir(parents=True)
    if params.rerank.methods:
        rerank(params)


def rerank(params: Params) -> None:
    """Verify the answers to every benchmark."""
    from pipeline.query.models import Models  # here: without methods the stage loads no torch
    from pipeline.rerank.outputs import BenchmarkReranking
    from pipeline.rerank.verify import Reranker
    from pipeline.retrieval.benchmarks import find_benchmarks
    from pipeline.runtime import set_up

    set_up(params.runtime, params.seed)
    reranker = Reranker(params.reranker, Models(params).verifier)
    for benchmark in find_benchmarks():
        retrieved, out = RETRIEVED / benchmark.name, FOLDER / benchmark.name
        BenchmarkReranking(params, benchmark, retrieved, out).run(reranker)


if __name__ == "__main__":
    run_stage(main)
