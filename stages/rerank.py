"""rerank: ranked lists, images and a multimodal LLM -> data/reranked/<benchmark>.

The answers of the methods in `rerank.methods`, verified and put into their new order.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.artifacts.shards import MANIFEST
from pipeline.config import ParameterError, Params, load_params
from pipeline.errors import run_stage
from pipeline.rerank.trained import check_trained
from pipeline.retrieval.benchmarks import BenchmarkFolder, find_benchmarks

RETRIEVED, FOLDER = Path("data/retrieved"), Path("data/reranked")


def main() -> None:
    params = load_params()
    benchmarks = find_benchmarks() if params.rerank.methods else []
    check(params, benchmarks)
    shutil.rmtree(FOLDER, ignore_errors=True)  # it may hold methods that are not reranked any more
    FOLDER.mkdir(parents=True)
    if benchmarks:
        rerank(params, benchmarks)


def check(params: Params, benchmarks: list[BenchmarkFolder]) -> None:
    """Raise ParameterError, before anything is deleted, where the model or a method's answers are not there."""
    if benchmarks:
        check_trained(params.reranker)
    for benchmark in benchmarks:
        there = sorted(path.parent.name for path in (RETRIEVED / benchmark.name / "rankings").glob(f"*/{MANIFEST}"))
        for method in params.rerank.methods:
            if method not in there:
                raise ParameterError(f"rerank.methods: {method!r} is not one of {', '.join(there)}")


def rerank(params: Params, benchmarks: list[BenchmarkFolder]) -> None:
    """Verify the answers to every benchmark."""
    from pipeline.encoders.mllm.open import open_mllm  # here: without methods the stage loads no torch
    from pipeline.rerank.outputs import BenchmarkReranking
    from pipeline.rerank.verify import Reranker
    from pipeline.runtime import set_up

    set_up(params.runtime, params.seed)
    reranker = Reranker(params.reranker, open_mllm(params.reranker, params.jobs, params.runtime.device))
    for benchmark in benchmarks:
        retrieved, out = RETRIEVED / benchmark.name, FOLDER / benchmark.name
        BenchmarkReranking(params, benchmark, retrieved, out).run(reranker)


if __name__ == "__main__":
    run_stage(main)
