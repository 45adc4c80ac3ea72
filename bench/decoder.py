"""What it takes to decode a feature and to train on one, with random weights: python -m bench.decoder.

Writes reports/bench/decoder_<profile>.json. Decoding takes the profile's steps and guidance, in bfloat16 on a GPU, as a
CUDA graph where the profile has `retrieve.fast`; it leaves out the autoencoder that makes pixels of latents.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer

from bench.machine import hardware, versions
from bench.profiles import profile
from pipeline.artifacts import write_json
from pipeline.config import Params
from pipeline.decoder import Decoder, DecoderSizes, Flow
from pipeline.gpu.recording import record

DIM = {"paper": 8192}
"""d where it is not the small f_M's 256."""


def seconds(call: Callable[[], Any], repeats: int, where: torch.device) -> float:
    """The median of some calls, each of which is waited for."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if where.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])  # the first one allocates


def measure(params: Params, where: torch.device, batch: int, repeats: int) -> dict[str, Any]:
    """Time decoding one image, decoding a batch, and a training step.

    Args:
        params: A profile's.
        where: The device.
        batch: Images of the batch and of the step.
        repeats: Calls whose median counts.
    """
    torch.manual_seed(0)
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    with where:
        decoder = Decoder(DecoderSizes.from_params(params.decoder, DIM.get(params.profile, 256))).to(dtype)
    sizes, flow, imagine = decoder.sizes, Flow(params.decoder.shift), params.imagine
    z = F.normalize(torch.randn(batch, sizes.dim, device=where), dim=1).to(dtype)
    noise = torch.randn(batch, sizes.channels, sizes.side, sizes.side, device=where)
    level = torch.rand(batch, device=where)

    @torch.no_grad()
    def decode(count: int) -> None:
        flow.sample(decoder, z[:count], noise[:count], imagine.solver_steps, imagine.guidance_scale)

    def step() -> None:
        decoder(noise.to(dtype), level.to(dtype), z).square().mean().backward()

    trained = seconds(step, repeats, where)
    recorded = params.retrieve.speed.on(where.type).cuda_graph
    if recorded:
        record(decoder)
    return {
        "profile": params.profile,
        "parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        "solver_steps": imagine.solver_steps,
        "batch": batch,
        "decode_one_s": round(seconds(lambda: decode(1), repeats, where), 4),
        "decode_batch_s": round(seconds(lambda: decode(batch), repeats, where), 4),
        "training_step_s": round(trained, 4),
        "cuda_graph": recorded,
    }


def main(
    name: Annotated[str, typer.Option("--profile", help="Whose sizes.")] = "offline",
    device: str = "cuda" if torch.cuda.is_available() else "cpu",
    batch: int = 8,
    repeats: int = 5,
    threads: int = 2,
    out: Path = Path("reports/bench"),
) -> None:
    torch.set_num_threads(threads)
    where = torch.device(device)
    found = measure(profile(name), where, batch, repeats)
    gpu = {"gpu": torch.cuda.get_device_name()} if where.type == "cuda" else {"threads": threads}
    write_json(out / f"decoder_{name}.json", found | hardware() | gpu | versions("torch", "diffusers"))
    typer.echo(found)


if __name__ == "__main__":
    typer.run(main)
