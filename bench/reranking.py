"""Pairs that a reranker of 3B parameters verifies in a second: python -m bench.reranking

Random weights of Qwen2.5-VL-3B's sizes in a hub's layout, so that nothing is downloaded; the time does not depend on
what they say. Each query has a reference, a modification and 50 answers, as in `cir search --rerank 50`. Preparing the
images counts, loading the model does not. vLLM is measured where it is installed. `reports/bench/reranking.json` has
the figures; those of a backend that is not measured again stay, if GPU and versions are the same.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml

from bench.machine import hardware, versions
from bench.rehearsal.data import picture
from bench.rehearsal.sizes import MLLMS, tiny_mllm
from bench.rehearsal.weights import write_mllm
from pipeline.artifacts import read_json, write_json
from pipeline.config import Params, RerankerParams, load_params
from pipeline.config.encoders import Backend, Dtype
from pipeline.encoders.image_source import InMemoryImages
from pipeline.encoders.mllm.open import open_mllm
from pipeline.rerank.verify import Reranker
from pipeline.retrieval import Query
from pipeline.runtime import set_up

MODEL = "Qwen/Qwen2.5-VL-3B-Instruct"
QUESTION = Path("conf/reranker/chat.yaml")
LETTERS = ["y", "n"]
"""The answers: the made-up tokenizer has tokens for letters, and none for yes."""
OUT = Path("reports/bench/reranking.json")
BACKENDS: tuple[Backend, ...] = ("transformers", "vllm")


def reranker_of(params: Params, folder: Path, backend: Backend, tiny: bool) -> RerankerParams:
    """The chat model's question to the model in a folder."""
    dtype: Dtype = "float32" if tiny else "bfloat16"
    template = yaml.safe_load(QUESTION.read_text())["template"]
    engine = {"gpu_memory_utilization": 0.5, "max_model_len": 2048} if backend == "vllm" else {}
    found = replace(params.reranker, path=str(folder), revision="", dtype=dtype, template=template, answers=LETTERS)
    return replace(found, backend=backend, vllm=engine)


def questions(queries: int, answers: int, side: int) -> tuple[list[Query], list[list[str]], InMemoryImages]:
    """Queries with answers and their images; no image is in two queries, so that nothing is known of a query before."""
    found = [Query(str(row), f"r{row}", ("make it red and put a dog beside it",), ()) for row in range(queries)]
    listed = [[f"{row}-{place}" for place in range(answers)] for row in range(queries)]
    names = [*(one.reference_id for one in found), *(name for row in listed for name in row)]
    return found, listed, InMemoryImages({name: picture(number, side) for number, name in enumerate(names)})


def measure(reranker: Reranker, queries: int, answers: int, side: int) -> dict[str, Any]:
    """One query to warm up, then the others by the clock."""
    asked, listed, images = questions(queries + 1, answers, side)
    reranker.probabilities(asked[:1], listed[:1], images, images)
    start = time.perf_counter()
    found = reranker.probabilities(asked[1:], listed[1:], images, images)
    seconds, pairs = time.perf_counter() - start, sum(map(len, found))
    return {
        "side": side,
        "pairs": pairs,
        "seconds": round(seconds, 2),
        "pairs_s": round(pairs / seconds, 1),
        "seconds_a_query_of_50": round(50 * seconds / pairs, 3),
    }


def main(
    queries: Annotated[int, typer.Option(help="Queries, of 50 answers each.")] = 8,
    sides: Annotated[str, typer.Option(help="The images' sides in pixels, with commas.")] = "256,384,512",
    backends: Annotated[str, typer.Option(help="With commas; one that is not installed is left out.")] = ",".join(
        BACKENDS
    ),
    scratch: Annotated[Path | None, typer.Option(help="Keeps the model's 8 GB; else they are deleted.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="The same classes in sizes for a CPU.")] = False,
    out: Annotated[Path, typer.Option(help="The result.")] = OUT,
) -> None:
    """Write the model, verify pairs, and write the JSON after each figure."""
    params, sizes = load_params(), MLLMS[MODEL]
    set_up(params.runtime, params.seed)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    result: dict[str, Any] = {"model": "tiny" if tiny else f"sizes of {MODEL}", "gpu": gpu, "machine": hardware()}
    result |= {"versions": versions("torch", "transformers"), "command": "python -m bench.reranking"}
    before = read_json(out) if out.is_file() else {}
    same = all(before.get(name) == result[name] for name in ("model", "gpu", "versions"))
    result["figures"] = before["figures"] if same else {}
    with tempfile.TemporaryDirectory() as place:
        folder = (scratch or Path(place)) / "model"
        write_mllm(folder, tiny_mllm(sizes) if tiny else sizes, torch.float32 if tiny else torch.bfloat16)
        for backend in BACKENDS:
            if backend not in backends.split(",") or importlib.util.find_spec(backend) is None:
                continue
            section = reranker_of(params, folder, backend, tiny)
            model = open_mllm(section, params.jobs, params.runtime.device)
            result["figures"][backend] = []
            for side in map(int, sides.split(",")):
                figures = measure(Reranker(section, model), queries, 4 if tiny else 50, side)
                result["figures"][backend].append(figures)
                print(backend, figures, flush=True)
                write_json(out, result)
            model.close()


if __name__ == "__main__":
    typer.run(main)
