"""What verifying a method's first answers changes, with intervals: python -m bench.verified

It wants what `dvc repro retrieve` makes, and asks `reranker` about the first answers to the validation queries and to
those of the held-out team. P(yes) is kept in `data/verified`, so that another weight asks nothing again.
`reports/bench/verified.json` has the figures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pipeline.artifacts import write_json
from pipeline.config import ParameterError, Params, load_params
from pipeline.encoders.identity import mllm_identity
from pipeline.encoders.image_source import ImageTable
from pipeline.encoders.mllm.open import open_mllm
from pipeline.errors import report_user_errors
from pipeline.report.metrics import RankedQueries
from pipeline.report.reranked import SHOWN, recall_changes
from pipeline.rerank.trained import check_trained
from pipeline.rerank.verify import Reranker, reranked
from pipeline.retrieval import read_queries, read_rankings
from pipeline.retrieval.benchmarks import BenchmarkFolder, find_benchmarks
from pipeline.retrieval.protocols import MEAN, recall_by_category
from pipeline.runtime import set_up

RETRIEVED, KEPT, OUT = Path("data/retrieved"), Path("data/verified"), Path("reports/bench/verified.json")


def first_order(benchmark: BenchmarkFolder, method: str) -> RankedQueries:
    """A method's answers to a benchmark's queries. Subsets are left out."""
    queries = read_queries(benchmark.path / "queries")
    found = read_rankings(RETRIEVED / benchmark.name / "rankings" / method).aligned(queries)
    return RankedQueries(queries, {method: [replace(ranking, subset_ranked_ids=()) for ranking in found]})


def probabilities(reranker: Reranker, before: RankedQueries, images: Path, method: str, top: int) -> list[np.ndarray]:
    """P(yes) of each query's first `top` answers, kept for the same reranker and answers."""
    asked = [ids[:top] for ids in before.ranked(method)]
    made_of = json.dumps([mllm_identity(reranker.params), [query.query_id for query in before.queries], asked])
    kept = KEPT / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.npy"
    if not kept.is_file():
        table = ImageTable(images)
        found = np.concatenate(reranker.probabilities(before.queries, asked, table, table))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, found)
    return np.split(np.load(kept), np.cumsum([len(ids) for ids in asked])[:-1])


def figures(before: RankedQueries, yes: Iterable[np.ndarray], method: str, params: Params) -> dict[str, Any]:
    """Recall of both orders, the mean over query kinds in percent, and the paired difference with its interval."""
    rows = [
        reranked(
            ranking, dict(zip(ranking.ranked_ids, values.tolist(), strict=False)), len(values), params.rerank.weight
        )
        for ranking, values in zip(before.by_method[method], yes, strict=True)
    ]
    after = replace(before, by_method={method: rows})
    recalls = {
        name: recall_by_category(order.ranked(method), order.targets, order.kinds, SHOWN)[MEAN]
        for name, order in (("before", before), ("after", after))
    }
    change = recall_changes(before, after, method, params.report.bootstrap, params.seed)
    rounded = {name: {key: round(value, 2) for key, value in row.items()} for name, row in recalls.items()}
    return {"queries": len(before.queries)} | rounded | {"change": change}


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@report_user_errors()
def main(
    method: Annotated[str, typer.Option(help="Whose answers are verified.")] = "fusion_diff",
    top: Annotated[int, typer.Option(help="How many of a query.")] = 50,
    benchmarks: Annotated[str, typer.Option(help="With commas.")] = "emoji_cir_val,emoji_cir",
    out: Annotated[Path, typer.Option(help="The result.")] = OUT,
) -> None:
    """Verify, score, and write the JSON."""
    params, there = load_params(), {folder.name: folder for folder in find_benchmarks()}
    if unknown := [name for name in benchmarks.split(",") if name not in there]:
        raise ParameterError(f"--benchmarks: {unknown} are not among {', '.join(there)}")
    check_trained(params.reranker)
    set_up(params.runtime, params.seed)
    reranker = Reranker(params.reranker, open_mllm(params.reranker, params.jobs, params.runtime.device))
    result: dict[str, Any] = {"command": "python -m bench.verified", "method": method, "top": top, "benchmarks": {}}
    result |= {"weight": params.rerank.weight, "reranker": params.reranker.path}
    for benchmark in (there[name] for name in benchmarks.split(",")):
        before = first_order(benchmark, method)
        yes = probabilities(reranker, before, benchmark.images, method, top)
        result["benchmarks"][benchmark.name] = figures(before, yes, method, params)
        print(benchmark.name, result["benchmarks"][benchmark.name]["change"], flush=True)
    write_json(out, result)


if __name__ == "__main__":
    app()
