"""14 steps with guidance at the paper's size, and the peer: python -m bench.sampling.

Writes reports/bench/sampling.json. Ours draws under control, from token states and control vectors to unit vectors on
the GPU. The peer has neither control nor anything around its denoiser but `diffusers`' solver: conditional and
unconditional rows in one compiled call.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer

from bench import peer as setting
from bench.kernels import kernel_times
from bench.peer import make_peer, peer_inputs, randomise, wait, where
from bench.profiles import profile
from pipeline.config import Speed
from pipeline.distill import Jumps, Limits, Student, StudentSampler, StudentSettings
from pipeline.fusion_diff import ControlAdapter, Diffusion, Prior, ReferenceSampler, Sampler, SamplerSettings
from pipeline.fusion_diff.conditions import TextBatch
from pipeline.fusion_diff.sampler import guide, solve
from pipeline.gpu import accelerate

GAMMA, STEPS = 2.5, 14


def timed(call: Callable[[], Any], size: int, repeats: int) -> dict[str, float]:
    """The first call, then median and slowest of `repeats` calls; nothing overlaps between calls."""
    taken = []
    for _ in range(repeats + 3):
        wait()
        start = time.perf_counter()
        call()
        wait()
        taken.append(1e3 * (time.perf_counter() - start))
    steady = taken[3:]
    middle = statistics.median(steady)
    found = {"batch": size, "median_ms": round(middle, 2), "slowest_ms": round(max(steady), 2)}
    return found | {"queries_per_second": round(1e3 * size / middle, 1), "first_call_s": round(taken[0] / 1e3, 1)}


def queries(rows: int, tokens: int) -> tuple[list[str], TextBatch, torch.Tensor]:
    """Ids, token states with their mask, and control vectors where the model is; fewer rows are the first of more."""
    generator, sizes = torch.Generator(setting.DEVICE), setting.PAPER
    states, control = [], []
    for row in range(rows):
        generator.manual_seed(row)
        states.append(torch.randn(tokens, sizes.text_dim, device=setting.DEVICE, generator=generator))
        control.append(torch.randn(sizes.dim, device=setting.DEVICE, generator=generator))
    mask = torch.ones(rows, tokens, dtype=torch.bool, device=setting.DEVICE)
    ids = [f"query {row}" for row in range(rows)]
    return ids, (torch.stack(states), mask), F.normalize(torch.stack(control), dim=1)


@torch.no_grad()
def make_ours() -> tuple[Prior, ControlAdapter]:
    """Random weights, scaled so that predictions have the variance of noise, as a trained prior's have."""
    torch.manual_seed(0)
    with setting.DEVICE:
        prior = randomise(Prior(setting.PAPER)).eval()
        adapter = randomise(ControlAdapter(prior)).eval()
        noise = torch.randn(4, setting.PAPER.dim)
        prior.out.weight /= prior(noise, torch.tensor([999, 700, 400, 100])).std()
    return prior, adapter


def measure_ours(
    batches: list[int], tokens: int, repeats: int, guided_share: float = 1.0, fp8: bool = False
) -> list[dict[str, Any]]:
    """Latency and throughput of an accelerated sampler, and how near it is to the plain one in fp32."""
    prior, adapter = make_ours()
    diffusion = Diffusion(profile("paper").prior.diffusion, setting.PAPER.dim)
    given = queries(max(batches), tokens)
    settings, kind = SamplerSettings(STEPS, GAMMA, guided_share=guided_share), "fp8" if fp8 else "bf16"
    reference = ReferenceSampler(prior, adapter, diffusion, settings).sample(*given)
    on_gpu = setting.DEVICE.type == "cuda"
    speed = Speed(fused=on_gpu, fp8=on_gpu and fp8, cuda_graph=True)
    sampler = accelerate(Sampler(prior.bfloat16(), adapter.bfloat16(), diffusion, settings), speed)
    rows: list[dict[str, Any]] = []
    drawn: dict[int, torch.Tensor] = {}
    for size in batches:
        given = queries(size, tokens)
        call = functools.partial(sampler.sample, *given)
        taken = timed(call, size, repeats)
        drawn[size] = call()
        cosine = F.cosine_similarity(drawn[size], reference[:size], dim=-1).min()
        rows.append(
            {
                "model": f"ours: prior and adapter, guidance and control, {kind}",
                "text_tokens": tokens,
                "guided_share": guided_share,
                **taken,
                "kernels_ms": kernel_times(call),
                "least_cosine_with_fp32_plain": round(float(cosine), 6),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    least, most = min(batches), max(batches)
    if least < most:
        alike = F.cosine_similarity(drawn[least], drawn[most][:least], dim=-1).min()
        rows.append(
            {
                "model": f"ours: the same queries at batch {least} and {most}, {kind}",
                "least_cosine": round(float(alike), 6),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


@torch.no_grad()
def measure_student(batches: list[int], tokens: int, repeats: int, fp8: bool = False) -> list[dict[str, Any]]:
    """Latency and throughput of an accelerated student with one and with two passes, and how near it is to fp32."""
    prior, adapter = make_ours()
    diffusion = Diffusion(profile("paper").prior.diffusion, setting.PAPER.dim)
    jumps, (ids, text, control) = Jumps(diffusion, STEPS), queries(max(batches), tokens)
    with setting.DEVICE:
        student = Student(prior, adapter, Limits(4.0, 1.0)).eval()
    on_gpu, kind = setting.DEVICE.type == "cuda", "fp8" if fp8 else "bf16"
    speed, passes, rows = Speed(fused=on_gpu, fp8=on_gpu and fp8, cuda_graph=True), (1, 2), list[dict[str, Any]]()
    settings = {number: StudentSettings(number, GAMMA) for number in passes}
    plain = {number: StudentSampler(student, jumps, settings[number]).sample(ids, text, control) for number in passes}
    student.bfloat16()
    for number in passes:
        sampler = accelerate(StudentSampler(student, jumps, settings[number]), speed)
        for size in batches:
            call = functools.partial(sampler.sample, *queries(size, tokens))
            taken = timed(call, size, repeats)
            cosine = F.cosine_similarity(call(), plain[number][:size], dim=-1).min()
            rows.append({"model": f"ours: student, {number} of its passes, control, {kind}", "text_tokens": tokens})
            rows[-1] |= taken | {"kernels_ms": kernel_times(call)}
            rows[-1] |= {"least_cosine_with_fp32_plain": round(float(cosine), 6)}
            print(json.dumps(rows[-1]), flush=True)
    return rows


@torch.no_grad()
def measure_peer(batches: list[int], tokens: int, repeats: int) -> list[dict[str, Any]]:
    """The same for the peer under guidance, without control: compiled blocks, and a call recorded as a CUDA graph."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    sizes, rows = setting.PAPER, []
    peer = randomise(make_peer(sizes).to(setting.DEVICE, torch.bfloat16)).eval()
    for block in peer.transformer_blocks:
        block.compile(dynamic=False)
    diffusion = Diffusion(profile("paper").prior.diffusion, sizes.dim)
    for size in batches:
        inputs = peer_inputs(2 * size, tokens, sizes)
        denoise = functools.partial(
            _peer_denoise, *_record(functools.partial(peer, **inputs, return_dict=False)), inputs
        )
        noise = torch.randn(size, sizes.channels, sizes.grid, sizes.grid, device=setting.DEVICE)
        rows.append(
            {
                "model": "diffusers PixArtTransformer2DModel, compiled, CUDA graph, guidance, no control, bf16",
                "text_tokens": tokens,
                **timed(functools.partial(solve, denoise, noise, diffusion, STEPS), size, repeats),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _record(call: Callable[[], Any]) -> tuple[Callable[[], Any], torch.Tensor]:
    """A replay of `call`, and where its result is left; without a GPU the call itself."""
    if setting.DEVICE.type == "cpu":
        result = call()[0]
        return lambda: result.copy_(call()[0]), result
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()[0]
    return graph.replay, result


def _peer_denoise(
    replay: Callable[[], Any],
    result: torch.Tensor,
    inputs: dict[str, torch.Tensor],
    noisy: torch.Tensor,
    index: int,
    step: int,
) -> torch.Tensor:
    inputs["hidden_states"].copy_(torch.cat([noisy, noisy]))
    inputs["timestep"].fill_(step)
    replay()
    conditional, unconditional = result.float().chunk(2)
    return guide(conditional, unconditional, GAMMA)


app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0913  # one option an argument
    batch: Annotated[list[int], typer.Option(help="Queries at once; several are tried.")] = [1, 32],  # noqa: B006
    tokens: int = 120,
    repeats: int = 20,
    ours: bool = True,
    student: Annotated[bool, typer.Option(help="The distilled sampler, with one and two passes.")] = True,
    peer: bool = True,
    guided_share: Annotated[float, typer.Option(help="As `retrieve.guided_share`.")] = 1.0,
    fp8: Annotated[bool, typer.Option(help="As `retrieve.fp8`.")] = False,
    out: Path = Path("reports/bench/sampling.json"),
) -> None:
    command = "python -m " + " ".join(["bench.sampling", *sys.argv[1:]])

    def note(rows: list[dict[str, Any]]) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        found = where() | {"command": command, "steps": STEPS, "guidance_scale": GAMMA, "rows": rows}
        out.write_text(json.dumps(found, indent=2) + "\n")

    rows = measure_ours(batch, tokens, repeats, guided_share, fp8) if ours else []
    note(rows)
    if student:
        rows += measure_student(batch, tokens, repeats, fp8)
        note(rows)
    if peer:
        note(rows + measure_peer(batch, tokens, repeats))


if __name__ == "__main__":
    app()
