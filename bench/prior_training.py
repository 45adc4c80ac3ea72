"""Stage 1 at the paper's size, and the peer: accelerate launch -m bench.prior_training.

Writes reports/bench/prior_training.json.

Ours is the training loop itself over random embeddings and token states: fp32 master weights, AdamW over them, bf16
products. With --encode a text encoder of random weights computes those states as the profile has it
(`text_encoder.while_training`), beside the training over stored ones. The peer is kinder to itself: weights and
optimiser states in bf16, inputs that already lie on the GPU.
"""

from __future__ import annotations

import functools
import gc
import json
import random
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
from bench.kernels import ProfilingMeter
from bench.peer import make_peer, peer_inputs, randomise, where
from bench.profiles import profile
from bench.rehearsal.sizes import T5S
from bench.rehearsal.weights import write_t5
from bench.rehearsal.words import caption
from pipeline.config import RuntimeParams, Speed
from pipeline.encoders.text import TextEncoder
from pipeline.fusion_diff import Diffusion, EncodedConditions, Prior, PriorTask, TextConditions
from pipeline.gpu import accelerate
from pipeline.gpu.texts import pack_texts
from pipeline.runtime import set_up
from pipeline.training import Run, train
from pipeline.training.loop import make_accelerator
from pipeline.training.meter import Meter

_SCRATCH = tempfile.TemporaryDirectory()
SKIP, PROFILED = 4, 2
"""Steps that record and allocate, and those after the measured ones whose kernels are noted."""
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
    encode: str = ""
    """The `text_encoder.dtype` that states are computed with while training; empty: they are stored."""


def measure_ours(setup: Setup) -> dict[str, Any]:
    """Throughput of `train` with the paper's optimiser."""
    sizes = setting.PAPER
    _clear()
    processes = PartialState().num_processes
    params = replace(
        profile("paper").prior,
        steps=setup.steps + SKIP + PROFILED,
        batch_size=setup.micro * setup.accumulate * processes,
        micro_batch_size=setup.micro,
        log_every=10**6,
        checkpoint_every=10**6,
    )
    text = encoded_texts(setup) if setup.encode else random_texts(setup.tokens, setup.ragged)
    encoding = {"text_encoder": setup.encode, **_alone(text, setup)} if isinstance(text, EncodedConditions) else {}
    z0 = F.normalize(torch.randn(EXAMPLES, sizes.dim), dim=1)
    with setting.DEVICE:
        prior = accelerate(randomise(Prior(sizes)), setup.speed.on(setting.DEVICE.type))
    task = PriorTask(prior, Diffusion(profile("paper").prior.diffusion, sizes.dim), z0, text, p_cfg=0.1)
    meter = ProfilingMeter(
        setup.steps,
        PROFILED,
        flops_per_sample=task.flops_per_sample,
        device=make_accelerator(params, setting.DEVICE.type).device,
        processes=processes,
        skip=SKIP,
    )
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
        "text_tokens": f"20 to {2 * setup.tokens - 20}, mean {text.mean_tokens:.0f}" if setup.ragged else setup.tokens,
        **encoding,
        "samples_per_second": round(meter.samples_per_second, 1),
        "mfu": round(meter.mfu, 3),
        "tflops": round(meter.samples_per_second * meter.flops_per_sample / 1e12 / processes, 1),
        "kernels_ms": meter.kernels,
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


@functools.cache
def _text_encoder_folder() -> Path:
    """Random weights of the paper's text encoder, which stay until the process ends."""
    folder = Path(_SCRATCH.name) / "t5"
    write_t5(folder, T5S[profile("paper").text_encoder.path])
    return folder


def encoded_texts(setup: Setup) -> EncodedConditions:
    """Captions that the paper's text encoder reads whenever a batch asks for them."""
    settings = profile("paper").text_encoder
    settings = replace(
        settings, path=str(_text_encoder_folder()), revision="", dtype=setup.encode, dim=setting.PAPER.text_dim
    )
    encoder = pack_texts(TextEncoder(settings, setting.DEVICE.type))
    rng, longest = random.Random(0), 2 * setup.tokens - 20
    texts = []
    for _ in range(EXAMPLES):
        words = (rng.randint(20, longest) if setup.ragged else setup.tokens) - 1  # and the token that ends a text
        texts.append(" ".join(caption(rng, words).split()[:words]))
    return EncodedConditions(texts, encoder, settings.dim, settings.max_tokens)


def _alone(text: EncodedConditions, setup: Setup) -> dict[str, float]:
    """Texts a second of the encoder without a training beside it."""
    batches = torch.arange(EXAMPLES).split(setup.micro)
    meter = Meter(device=setting.DEVICE, skip=1)
    for rows in batches:
        text.batch(rows, setting.DEVICE)
        meter.step(len(rows))
    meter.wait()
    return {"texts_per_second_alone": round(meter.samples_per_second, 1)}


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
    encode: Annotated[
        list[str] | None,
        typer.Option(help="Also encode the texts while training, with this `text_encoder.dtype`; several are tried."),
    ] = None,
    out: Path = Path("reports/bench/prior_training.json"),
) -> None:
    set_up(
        RuntimeParams(threads=4, device=setting.DEVICE.type, gpus="auto", portable=True, deterministic=deterministic), 0
    )
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
    for dtype in encode or []:
        for mixed in (False, True):
            note(measure_ours(Setup(micro_batch[0], accumulate, steps, tokens, speed, mixed, dtype)))
    if ragged:
        note(measure_ours(Setup(micro_batch[0], accumulate, steps, tokens, speed, ragged=True)))
    if peer and main_process:
        note(measure_peer(micro_batch[0], accumulate, steps, tokens))


if __name__ == "__main__":
    app()
