"""What the quick ways cost in recall: python -m bench.recall, on a GPU, after `dvc repro`. Writes reports/bench/recall.json.

Both stages of Fusion-Diff are trained on the default's data with fused kernels, in bfloat16 and with products of 8 bits, from several
seeds, and sampled in the ways that `retrieve` has. The validation split judges. Its three steps may run on different machines, since
only the second needs a GPU: `--step texts`, `--step draw`, `--step score`, with the folder `--between` carried along.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import pipeline  # noqa: F401  (what it declares for torchvision comes before any library that imports that)

# isort: split
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bench import peer as setting
from bench.peer import where
from pipeline.artifacts import read_json, write_json
from pipeline.config import Params, load_params, with_overrides
from pipeline.fusion_diff import (
    ControlAdapter,
    ControlTask,
    Diffusion,
    Prior,
    PriorSizes,
    PriorTask,
    Sampler,
    SamplerSettings,
    TextConditions,
)
from pipeline.fusion_diff.checkpoints import open_conditions, open_vectors
from pipeline.runtime import set_up
from pipeline.training import train

FUSED = Path("data/fused")
TRAINED = {"bf16": False, "fp8": True}
GUIDED = {"guidance_scale": 2.5}
"""The paper's; the default searches without guidance."""
SAMPLED: dict[str, dict[str, Any]] = {
    "plain fp32": {"fast": False},
    "bf16": {},
    "fp8": {"fp8": True},
    "bf16, guided": GUIDED,
    "fp8, guided": GUIDED | {"fp8": True},
    "bf16, half of the steps guided": GUIDED | {"guided_share": 0.5},
    "bf16, a quarter guided": GUIDED | {"guided_share": 0.25},
    "fp8, half of the steps guided": GUIDED | {"guided_share": 0.5, "fp8": True},
}
"""What changes of `SamplerSettings`, and `Sampler`'s `fast` (true where nothing else is said) and `fp8`."""


def write_texts(params: Params, between: Path) -> None:
    """The validation queries as the sampler takes them; on the default's machine, for it needs the text encoder and an index."""
    from pipeline.experiments.sweep import SweepInputs, SweepPaths

    read = SweepInputs.load(params, SweepPaths.of(params.sweep.benchmark))
    (text,) = read.texts
    save_file({"states": text.states, "lengths": text.lengths, "fused": read.fused}, between / "queries.safetensors")
    write_json(between / "queries.json", [query.query_id for query in read.queries])


def train_both(params: Params, folder: str) -> tuple[Prior, ControlAdapter, Diffusion]:
    """Stage 1 and Stage 2 as their stages do, on the GPU."""
    ids, z0, _ = open_vectors(FUSED / "pairs")
    text, _ = open_conditions(FUSED / "pairs_text", ids)
    diffusion = Diffusion(params.prior.diffusion, z0.shape[1])
    torch.manual_seed(params.seed)
    prior = Prior(PriorSizes.from_params(params.prior, z0.shape[1], text.dim, params.text_encoder.max_tokens))
    options = {"seed": params.seed, "identity": {}, "device": setting.DEVICE.type}
    on_gpu = setting.DEVICE.type == "cuda"
    speed = {"fused": on_gpu, "fp8": on_gpu and params.prior.fp8, "cuda_graph": on_gpu}
    task = PriorTask(prior, diffusion, z0, text, params.prior.p_cfg, **speed)
    train(task, params.prior, folder=f"{folder}/prior", title="prior", **options)
    ids, control, _ = open_vectors(FUSED / "triplets_query")
    _, targets, _ = open_vectors(FUSED / "triplets_target")
    text, _ = open_conditions(FUSED / "triplets_text", ids)
    adapter = ControlAdapter(prior)
    task = ControlTask(prior, adapter, diffusion, control, targets, text, params.control.p_cfg, **speed)
    train(task, params.control, folder=f"{folder}/control", title="control adapter", **options)
    prior.fused = False
    return prior, adapter, diffusion


def draw(params: Params, seeds: list[int], between: Path) -> None:
    """[Q, d] targets for every way to train and to sample."""
    ids, read = read_json(between / "queries.json"), load_file(between / "queries.safetensors")
    text = TextConditions(
        read["states"], torch.cat([torch.zeros(1, dtype=torch.int64), read["lengths"].cumsum(0)]), ids
    )
    states, mask = text.batch(torch.arange(len(ids)))
    mask = torch.ones(states.shape[:2], dtype=torch.bool) if mask is None else mask
    targets = {}
    for kind, fp8 in TRAINED.items():
        changed = {"precision": "bf16", "fused": True, "fp8": fp8}
        for seed in seeds:
            own = with_overrides(params, {"prior": changed, "control": changed, "seed": seed}, "bench.recall")
            with tempfile.TemporaryDirectory() as folder:
                prior, adapter, diffusion = train_both(own, folder)
            for way, given in SAMPLED.items():
                speed = {"fast": given.get("fast", True), "fp8": given.get("fp8", False)}
                changes = {name: value for name, value in given.items() if name not in speed}
                settings = replace(SamplerSettings.from_params(own.retrieve), **changes)
                parts = copy.deepcopy(prior).to(setting.DEVICE), copy.deepcopy(adapter).to(setting.DEVICE)
                if speed["fast"]:
                    parts = tuple(part.bfloat16() for part in parts)
                sampler = Sampler(*parts, diffusion, settings, **speed)
                drawn = sampler.sample(ids, states, mask, read["fused"], seed=params.seed)[:, 0]
                targets[f"{kind}/{way}/{seed}"] = drawn.cpu().contiguous()
    save_file(targets, between / "targets.safetensors")
    write_json(between / "where.json", where())


def score(params: Params, seeds: list[int], between: Path, out: Path) -> None:
    """R@10 on the validation split: the mean over seeds, each mean over kinds of queries first."""
    from pipeline.experiments.sweep import SweepInputs, SweepPaths

    read, rows = SweepInputs.load(params, SweepPaths.of(params.sweep.benchmark)), []
    targets = load_file(between / "targets.safetensors")
    for kind in TRAINED:
        for way in SAMPLED:
            found = [read.recall(targets[f"{kind}/{way}/{seed}"][:, None].numpy())[0][1] for seed in seeds]
            rows.append(
                {"trained": kind, "sampled": way, "recall_at_10": round(float(np.mean(found)), 2), "seeds": found}
            )
            print(json.dumps(rows[-1]), flush=True)
    command = "python -m " + " ".join(["bench.recall", *sys.argv[1:]])
    measured = {"command": command, "benchmark": params.sweep.benchmark, "queries": len(read.queries), "rows": rows}
    write_json(out, read_json(between / "where.json") | measured)


def main(
    step: Annotated[str, typer.Option(help="texts, draw, score, or all.")] = "all",
    between: Annotated[Path, typer.Option(help="What the steps leave for each other.")] = Path("data/recall"),
    seed: Annotated[list[int], typer.Option(help="Several are averaged.")] = [0, 1, 2],  # noqa: B006
    out: Path = Path("reports/bench/recall.json"),
) -> None:
    params = load_params()
    set_up(params.runtime, params.seed)
    between.mkdir(parents=True, exist_ok=True)
    if step in ("all", "texts"):
        write_texts(params, between)
    if step in ("all", "draw"):
        draw(params, seed, between)
    if step in ("all", "score"):
        score(params, seed, between, out)


if __name__ == "__main__":
    typer.run(main)
