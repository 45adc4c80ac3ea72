"""Stage 1 at the paper's size, and the peer: accelerate launch -m bench.prior_training.

Writes reports/bench/prior_training.json.

Ours is the training loop itself over random embeddings and token states: fp32 master weights, AdamW over them, bf16
products. The peer is kinder to itself: weights and optimiser states in bf16, inputs that already lie on the GPU.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from accelerate import PartialState

from bench import peer as setting
from bench.peer import make_peer, peer_inputs, randomise, where
from bench.profiles import profile
from pipeline.config import RuntimeParams, Speed
from pipeline.fusion_diff import Diffusion, Prior, PriorTask, TextConditions
from pipeline.gpu import accelerate
from pipeline.runtime import set_up
from pipeline.training import Run, train
from pipeline.training.loop import make_accelerator
from pipeline.training.meter import Meter

SKIP = 4
"""Steps that record and allocate."""
EXAMPLES = 1024


@dataclass(frozen=True)
class Setup:
    """What is trained, and how."""

    micro: int
    accumulate: int
    steps: int
    tokens: int
    """Of a text; on average where they are ragged."""
    speed: Speed
    ragged: bool = False


def measure_ours(setup: Setup) -> dict[str, Any]:
    """Throughput of `train` with the paper's optimiser."""
    sizes, tokens = setting.PAPER, setup.tokens
    _clear()
    processes = PartialState().num_processes
    params = replace(
        profile("paper").prior,
        steps=setup.steps + SKIP,
        batch_size=setup.micro * setup.accumulate * processes,
        micro_batch_size=setup.micro,
        log_every=10**6,
        checkpoint_every=10**6,
    )
    text = random_texts(tokens, setup.ragged)
    z0 = F.normalize(torch.randn(EXAMPLES, sizes.dim), dim=1)
    with setting.DEVICE:
        prior = accelerate(randomise(Prior(sizes)), setup.speed.on(setting.DEVICE.type))
    task = PriorTask(prior, Diffusion(profile("paper").prior.diffusion, sizes.dim), z0, text, p_cfg=0.1)
    meter = Meter(task.flops_per_sample, make_accelerator(params, setting.DEVICE.type).device, processes, skip=SKIP)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        title = f"ours, {setup.micro} x {setup.accumulate}"
        train(task, params, Run(0, Path(folder), {}, setting.DEVICE.type, title, setup.speed.cuda_graph), meter)
    meter.wait()
    return {
        "model": f"prior, {sum(p.numel() for p in prior.parameters()):,} parameters",
        "micro_batch": setup.micro,
        "accumulated": setup.accumulate,
        "gpus": processes,
        "cuda_graph": setup.speed.cuda_graph,
        "fp8": setup.speed.fp8,
        "text_tokens": f"20 to {2 * tokens - 20}, mean {text.mean_tokens:.0f}" if setup.ragged else tokens,
        "samples_per_second": round(meter.samples_per_second, 1),
        "mfu": round(meter.mfu, 3),
        "tflops": round(meter.samples_per_second * meter.flops_per_sample / 1e12 / processes, 1),
        "peak_memory_gib": _peak_memory_gib(),
        "seconds": round(time.perf_counter() - began, 1),
    }


def random_texts(tokens: int, ragged: bool) -> TextConditions:
    """Token states of as many texts as there are examples."""
    sizes = setting.PAPER
    if ragged:
        lengths = torch.randint(20, 2 * tokens - 20, (EXAMPLES,)).clamp(max=sizes.text_tokens)
    else:
        lengths = torch.full((EXAMPLES,), tokens)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    drawn = torch.randn(int(offsets[-1]), sizes.text_dim, dtype=torch.float16, device=setting.DEVICE)
    return TextConditions(drawn.cpu(), offsets)  # drawn on a GPU, seconds sooner


def measure_peer(micro: int, accumulate: int, steps: int, tokens: int) -> dict[str, Any]:
    """Throughput of the peer, its blocks compiled."""
    _clear()
    peer = randomise(make_peer(setting.PAPER).to(setting.DEVICE, torch.bfloat16)).train()
    for block in peer.transformer_blocks:
        block.compile()
    optimiser = torch.optim.AdamW(peer.parameters(), lr=2e-5, weight_decay=3e-2, fused=True)
    inputs = peer_inputs(micro, tokens, setting.PAPER)
    target, meter = torch.randn_like(inputs["hidden_states"]), Meter(device=setting.DEVICE, skip=SKIP)
    for _ in range(steps + SKIP):
        for _ in range(accumulate):
            loss = F.mse_loss(peer(**inputs, return_dict=False)[0].float(), target.float())
            (loss / accumulate).backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.01)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        meter.step(micro * accumulate)
    meter.wait()
    found = {
        "model": f"diffusers PixArtTransformer2DModel, {sum(p.numel() for p in peer.parameters()):,} parameters",
        "micro_batch": micro,
        "accumulated": accumulate,
        "gpus": 1,
        "text_tokens": tokens,
        "samples_per_second": round(meter.samples_per_second, 1),
        "peak_memory_gib": _peak_memory_gib(),
    }
    return found


def _clear() -> None:
    """Forget the model before."""
    torch._dynamo.reset()
    gc.collect()
    torch.manual_seed(0)
    if setting.DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_memory_gib() -> float:
    return round(torch.cuda.max_memory_allocated() / 2**30, 1) if setting.DEVICE.type == "cuda" else 0.0


app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0913  # one option an argument
    micro_batch: Annotated[list[int], typer.Option(help="Samples of a GPU at once; several are tried.")] = [128],  # noqa: B006
    samples: Annotated[int, typer.Option(help="A GPU's share of the global batch: 4096 over eight.")] = 512,
    steps: int = 8,
    tokens: int = 120,
    ours: bool = True,
    peer: bool = True,
    ragged: Annotated[bool, typer.Option(help="Also texts of mixed lengths.")] = False,
    deterministic: Annotated[
        bool, typer.Option(help="Bit for bit on one machine, as `runtime.deterministic`.")
    ] = False,
    cuda_graph: Annotated[bool, typer.Option(help="As `prior.cuda_graph`.")] = False,
    fp8: Annotated[bool, typer.Option(help="Also with `prior.fp8`.")] = False,
    out: Path = Path("reports/bench/prior_training.json"),
) -> None:
    set_up(RuntimeParams(threads=4, device=setting.DEVICE.type, portable=True, deterministic=deterministic), 0)
    main_process = PartialState().is_main_process
    rows = []

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        if main_process:
            print(json.dumps(row), flush=True)
            written = where() | {
                "command": "python -m " + " ".join(["bench.prior_training", *sys.argv[1:]]),
                "rows": rows,
            }
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(written | {"deterministic": deterministic}, indent=2) + "\n")

    speed = Speed(fused=True, cuda_graph=cuda_graph)
    for micro in micro_batch if ours else []:
        setup = Setup(micro, max(1, samples // micro), steps, tokens, speed)
        note(measure_ours(setup))
        if fp8:
            note(measure_ours(replace(setup, speed=replace(speed, fp8=True))))
    accumulate = max(1, samples // micro_batch[0])
    if ragged:
        note(measure_ours(Setup(micro_batch[0], accumulate, steps, tokens, speed, ragged=True)))
    if peer and main_process:
        note(measure_peer(micro_batch[0], accumulate, steps, tokens))


if __name__ == "__main__":
    app()
