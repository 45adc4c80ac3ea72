"""What the quick ways cost in recall: python -m bench.recall, on a GPU, after `dvc repro`.

Writes reports/bench/recall.json. Both stages of Fusion-Diff are trained on the default's data with fused kernels, in
bfloat16 and with 8-bit products, from several seeds, and sampled in the ways that `retrieve` has. The validation split
judges. The three steps may run on different machines, since only the second needs a GPU: `--step texts`, `--step draw`,
`--step score`, with the folder `--between` carried along.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import pipeline  # noqa: F401  (what it declares for torchvision comes before any library that imports that)

# isort: split
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bench import peer as setting
from bench.peer import where
from pipeline.artifacts import read_json, write_json
from pipeline.config import Params, Speed, load_params, with_overrides
from pipeline.fusion_diff import (
    ControlAdapter,
    ControlledPrior,
    ControlTask,
    Diffusion,
    Prior,
    PriorSizes,
    PriorTask,
    Sampler,
    SamplerSettings,
    TextConditions,
)
from pipeline.fusion_diff.tables import open_conditions, open_vectors
from pipeline.gpu import accelerate
from pipeline.runtime import set_up
from pipeline.training import Run, train

FUSED = Path("data/fused")
TRAINED = {"bf16": Speed(fused=True), "fp8": Speed(fused=True, fp8=True)}
"""How the models are trained, on a GPU as CUDA graphs."""
PLAIN, FAST, FAST_FP8 = Speed(), Speed(fused=True, cuda_graph=True), Speed(fused=True, fp8=True, cuda_graph=True)
GUIDED = {"guidance_scale": 2.5}
"""The paper's; the default searches without guidance."""
SAMPLED: dict[str, tuple[Speed, dict[str, float]]] = {
    "plain fp32": (PLAIN, {}),
    "bf16": (FAST, {}),
    "fp8": (FAST_FP8, {}),
    "bf16, guided": (FAST, GUIDED),
    "fp8, guided": (FAST_FP8, GUIDED),
    "bf16, half of the steps guided": (FAST, GUIDED | {"guided_share": 0.5}),
    "bf16, a quarter guided": (FAST, GUIDED | {"guided_share": 0.25}),
    "fp8, half of the steps guided": (FAST_FP8, GUIDED | {"guided_share": 0.5}),
}
"""How it is sampled: a plain sampler in fp32, or a quick one in bfloat16; and what changes of `SamplerSettings`."""


def write_texts(params: Params, between: Path) -> None:
    """The validation queries as the sampler takes them. Needs the text encoder and an index."""
    from pipeline.experiments.sweep import SweepInputs, SweepPaths

    read = SweepInputs.load(params, SweepPaths.of(params.sweep.benchmark))
    (text,) = read.texts
    save_file({"states": text.states, "lengths": text.lengths, "fused": read.fused}, between / "queries.safetensors")
    write_json(between / "queries.json", [query.query_id for query in read.queries])


def train_both(params: Params, speed: Speed, folder: Path) -> tuple[Prior, ControlAdapter, Diffusion]:
    """Stage 1 and Stage 2 as their stages do, quick on a GPU; plain models with the weights that were trained."""
    device = setting.DEVICE.type
    speed = speed.on(device)
    ids, z0, _ = open_vectors(FUSED / "pairs")
    text, _ = open_conditions(FUSED / "pairs_text", ids)
    diffusion = Diffusion(params.prior.diffusion, z0.shape[1])
    torch.manual_seed(params.seed)
    sizes = PriorSizes.from_params(params.prior, z0.shape[1], text.dim, params.text_encoder.max_tokens)
    prior = accelerate(Prior(sizes), speed)
    task = PriorTask(prior, diffusion, z0, text, params.prior.p_cfg)
    train(task, params.prior, Run(params.seed, folder / "prior", {}, device, "prior", cuda_graph=True))
    ids, control, _ = open_vectors(FUSED / "triplets_query")
    _, targets, _ = open_vectors(FUSED / "triplets_target")
    text, _ = open_conditions(FUSED / "triplets_text", ids)
    model = accelerate(ControlledPrior(prior, ControlAdapter(prior)), speed)
    task = ControlTask(model, diffusion, control, targets, text, params.control.p_cfg)
    train(task, params.control, Run(params.seed, folder / "control", {}, device, "control adapter", cuda_graph=True))
    plain = Prior(sizes)
    plain.load_state_dict(prior.state_dict())
    adapter = ControlAdapter(plain)
    adapter.load_state_dict(model.adapter.state_dict())
    return plain, adapter, diffusion


def draw(params: Params, seeds: list[int], between: Path) -> None:
    """[Q, d] targets for every way to train and to sample."""
    ids, read = read_json(between / "queries.json"), load_file(between / "queries.safetensors")
    text = TextConditions(
        read["states"], torch.cat([torch.zeros(1, dtype=torch.int64), read["lengths"].cumsum(0)]), ids
    )
    states, mask = text.batch(torch.arange(len(ids)))
    targets = {}
    for kind, speed in TRAINED.items():
        changed = {"precision": "bf16"}
        for seed in seeds:
            own = with_overrides(params, {"prior": changed, "control": changed, "seed": seed}, "bench.recall")
            with tempfile.TemporaryDirectory() as folder:
                prior, adapter, diffusion = train_both(own, speed, Path(folder))
            for way, (quick, changes) in SAMPLED.items():
                settings = replace(SamplerSettings.from_params(own.retrieve), **changes)
                parts = copy.deepcopy(prior).to(setting.DEVICE), copy.deepcopy(adapter).to(setting.DEVICE)
                if quick != PLAIN:
                    parts = parts[0].bfloat16(), parts[1].bfloat16()
                sampler = accelerate(Sampler(*parts, diffusion, settings), quick.on(setting.DEVICE.type))
                drawn = sampler.sample(ids, (states, mask), read["fused"], seed=params.seed)[:, 0]
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
