"""What DiffComp costs: super-patches beside plain encoding, and a training step beside plain CLIP fine-tuning.

    python -m bench.diffcomp                     # ViT-L/14, S = 4, batch 64, bf16: one GPU, about a minute
    python -m bench.diffcomp --model models/backbones/clip --super-patch 2 --trained 2    # the default's, on a CPU
    python -m bench.diffcomp --count --batch 4   # floating-point operations instead of seconds, on any machine

Weights are random: no figure depends on them. Variants take turns, and of each the median counts. The peers share run,
device, batch, precision and trained layers: this project's plain contrastive step (texts cut to the longest of the
batch, as DiffComp's are), and open_clip's own model and loss (texts at full length).
"""

from __future__ import annotations

import pipeline  # noqa: F401 (what it declares for torchvision comes before open_clip)

# isort: split
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any, cast
from unittest.mock import patch

import open_clip
import torch
import typer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.machine import hardware, versions
from bench.profiles import profile
from pipeline.artifacts import ArtifactError, read_json, write_json
from pipeline.diffcomp import Batch, DiffComp, Phrases
from pipeline.diffcomp.losses import info_nce, inverse_temperature
from pipeline.diffcomp.superpatches import SuperPatches
from pipeline.encoders.dual import clip
from pipeline.encoders.dual.clip import CLIP_CONFIG, ClipEncoder, build_clip
from pipeline.encoders.dual.interface import DualEncoder
from pipeline.errors import report_user_errors

CSS_BOUND, STEP_BOUND = 0.07, 2.4
"""What is aimed at: CSS's share of plain encoding, and a training step with k = 1 in plain steps."""
WORDS, PHRASES, PHRASE_WORDS = (8, 20), 3, (1, 4)
"""Of a caption: words, noun phrases, and words of one of them; from .. to."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@report_user_errors()
def main(  # noqa: PLR0913 - one option an argument
    model: Annotated[str, typer.Option(help="One of open_clip's models, or a folder of one.")] = "ViT-L-14",
    super_patch: Annotated[int, typer.Option(help="S.", min=1)] = 4,
    batch: Annotated[int, typer.Option(min=2)] = 64,
    trained: Annotated[int, typer.Option(help="Blocks of each tower that are trained.", min=1)] = 12,
    repeats: Annotated[int, typer.Option(help="Timed turns of every variant.", min=1)] = 10,
    count: Annotated[bool, typer.Option("--count", help="Count operations on the CPU, measure nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="The result; by default in reports/bench.")] = None,
) -> None:
    """Measure, or count, and write the JSON."""
    device = "cuda" if torch.cuda.is_available() and not count else "cpu"
    config = model_config(model)

    def encoder() -> ClipEncoder:
        torch.manual_seed(0)
        with torch.device(device):
            return ClipEncoder(build_clip(config), None, config)

    command = (
        f"python -m bench.diffcomp --model {model} --super-patch {super_patch} --batch {batch} --trained {trained}"
    )
    if count:
        counted = operations(encoder, super_patch, batch, trained)
        write_json(
            out or Path("reports/bench/diffcomp_operations.json"),
            {
                "command": f"{command} --count",
                "versions": versions("torch", "open_clip_torch"),
                **counted,
            },
        )
        typer.echo(counted)
        return
    encoding = encoding_costs(encoder(), super_patch, batch, repeats)
    steps = step_costs(encoder, super_patch, batch, trained, repeats)
    attention = attention_costs(encoder(), batch, repeats)
    machine = {**hardware(), "gpu": torch.cuda.get_device_name() if device == "cuda" else None}
    write_json(
        out or Path("reports/bench/diffcomp.json"),
        {
            "command": command,
            "hardware": machine,
            "versions": versions("torch", "open_clip_torch"),
            "repeats": repeats,
            "precision": "bf16" if device == "cuda" else "fp32",
            "clock": "wall" if device == "cuda" else "processor",
            "encoding": encoding,
            "training": steps,
            "attention": attention,
            "reached": reached(encoding, steps),
        },
    )
    typer.echo(table(encoding, steps, attention))


def model_config(model: str) -> dict[str, Any]:
    """open_clip's configuration of a model, by its name or the folder of a backbone."""
    if Path(model).is_dir():
        return read_json(Path(model) / CLIP_CONFIG)["model_cfg"]
    config = open_clip.get_model_config(model)
    if config is None:
        raise ArtifactError(f"--model: {model!r} is neither a folder nor one of open_clip's models")
    return config


def paper_form(encoder: DualEncoder, side: int, batch: int, trained: int, **changes: Any) -> DiffComp:
    """The paper's form over an encoder, with k = L unless `changes` say otherwise."""
    sizes: dict[str, Any] = {"super_patch": side, "batch_size": batch, "image_layers": trained, "text_layers": trained}
    return DiffComp(encoder, replace(profile("paper").diffcomp, **sizes, **{"local_blocks": encoder.depth} | changes))


def encoding_costs(encoder: DualEncoder, side: int, batch: int, repeats: int) -> dict[str, Any]:
    """Inference: plain encoding, and the same with all f_j, for several k. Seconds a batch, and what CSS adds."""
    encoder.eval()
    images = torch.randn(batch, 3, encoder.image_size, encoder.image_size, device=encoder.mean.device)

    def with_local(css: SuperPatches) -> Callable[[], Any]:
        def encode() -> None:
            before = encoder.run(encoder.embed_patches(images), 0, css.cut)
            after = encoder.run(before, css.cut, encoder.depth)
            encoder.project(after[:, 0])
            css.encode(encoder, before, after, css.assign(before))

        return encode

    depths = sorted({k for k in (1, 2, 3, 4, encoder.depth // 2, encoder.depth) if k <= encoder.depth})
    works = {"plain": lambda: encoder.encode_image(images)}
    works |= {str(k): with_local(SuperPatches(encoder, side, k)) for k in depths}
    with torch.inference_mode(), halved(images.device.type):
        seconds = in_turns(works, repeats)
    plain = seconds.pop("plain")
    return {
        "batch": batch,
        "super_patch": side,
        "plain_s": round(plain, 5),
        "plain_images_per_s": round(batch / plain, 1),
        "local_blocks": {
            k: {"seconds": round(spent, 5), "added": round(spent / plain - 1, 4)} for k, spent in seconds.items()
        },
    }


def step_costs(make: Callable[[], ClipEncoder], side: int, batch: int, trained: int, repeats: int) -> dict[str, Any]:
    """A whole optimiser step of each (forward, backward, clipping, AdamW), and its peak memory in GiB on a GPU."""
    result: dict[str, Any] = {"batch": batch, "trained_blocks": trained}
    works = {"plain": plain_step, "open_clip": open_clip_step, "diffcomp": diffcomp_step, "diffcomp_k1": diffcomp_step}
    checkpointed = {f"{name}_checkpointed": works[name] for name in ("plain", "diffcomp")}
    for name, build in (works | checkpointed).items():
        encoder = make().train()
        changes: dict[str, Any] = {"gradient_checkpointing": name in checkpointed}
        if name == "diffcomp_k1":
            changes["local_blocks"] = 1
        model = paper_form(encoder, side, batch, trained, **changes).to(encoder.mean.device)
        step = optimised(model if build is diffcomp_step else encoder, build(model, made_up_batch(encoder, batch)))
        result[name] = measured(step, repeats)
        del encoder, model, step
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    for name, peers in (
        ("diffcomp", ("plain", "open_clip")),
        ("diffcomp_k1", ("plain", "open_clip")),
        ("diffcomp_checkpointed", ("plain", "plain_checkpointed")),
    ):
        for peer in peers:
            if "seconds" in result[name] and "seconds" in result[peer]:
                result[name][f"times_{peer}"] = round(result[name]["seconds"] / result[peer]["seconds"], 3)
    return result


def attention_costs(encoder: DualEncoder, batch: int, repeats: int) -> dict[str, Any]:
    """All visual blocks forward and backward, without and with a bias that learns: seconds, and PyTorch's operators."""
    side = encoder.patch_grid[0] * encoder.patch_grid[1]
    tokens = torch.randn(batch, 1 + side, encoder.width, device=encoder.mean.device, requires_grad=True)
    biases = {"plain": None, "masked": torch.zeros(batch, 1 + side, device=tokens.device, requires_grad=True)}

    def through(bias: Tensor | None) -> Callable[[], None]:
        def work() -> None:
            with halved(tokens.device.type):
                output = encoder.run(tokens, 0, encoder.depth, bias)
            output.float().sum().backward()

        return work

    works = {name: through(bias) for name, bias in biases.items()}
    seconds = in_turns(works, repeats)
    result = {
        name: {"seconds": round(seconds[name], 5), "operators": attention_operators(work)}
        for name, work in works.items()
    }
    result["masked"]["times_plain"] = round(seconds["masked"] / seconds["plain"], 3)
    return result


def attention_operators(work: Callable[[], None]) -> list[str]:
    """The operators that `scaled_dot_product_attention` chose: they name its backend, on any device."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        work()
    names = {event.key.removeprefix("aten::") for event in profiler.key_averages()}
    return sorted(name for name in names if name.startswith("_scaled_dot_product"))


def measured(step: Callable[[], None], repeats: int) -> dict[str, Any]:
    """Seconds, and peak memory in GiB on a GPU; `out_of_memory` where the batch does not fit."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        seconds = in_turns({"step": step}, repeats)["step"]
    except torch.cuda.OutOfMemoryError:
        return {"out_of_memory": True}
    peak = {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)} if on_gpu else {}
    return {"seconds": round(seconds, 5)} | peak


def operations(make: Callable[[], ClipEncoder], side: int, batch: int, trained: int) -> dict[str, Any]:
    """Floating-point operations of matrix products, forward and backward: of a whole step, and of encoding with f_j.

    A small batch stands for one of 64, so the share of short texts that are encoded apart is scaled with it.
    """
    encoder = make().train()
    model = paper_form(encoder, side, batch, trained)
    data, counted = made_up_batch(encoder, batch), {}
    with patch.object(clip, "SHORT_TEXTS", max(1, clip.SHORT_TEXTS * batch // 64)):
        for name, build in (("plain", plain_step), ("diffcomp", diffcomp_step)):
            with FlopCounterMode(display=False) as counter:
                build(model, data)().backward()
            counted[name] = counter.get_total_flops()
    images, added = data.images[:1], {}
    with torch.no_grad():
        before = encoder.embed_patches(images)  # what the tokens hold does not matter here
        with FlopCounterMode(display=False) as counter:
            encoder.encode_image(images)
        for k in (1, 2, encoder.depth):
            css = SuperPatches(encoder, side, k)
            with FlopCounterMode(display=False) as local:
                css.encode(encoder, before, before, css.assign(before))
            added[str(k)] = round(local.get_total_flops() / counter.get_total_flops(), 4)
    return {
        "batch": batch,
        "step_operations": counted,
        "step_in_plain_steps": round(counted["diffcomp"] / counted["plain"], 3),
        "css_added": added,
    }


def made_up_batch(encoder: ClipEncoder, count: int) -> Batch:
    """Images, captions, phrases, and what is composed with: the caption or one phrase, half and half."""
    generator, where, context = torch.Generator().manual_seed(0), encoder.mean.device, encoder.context
    sizes = (encoder.model_cfg or {}).get("text_cfg", {})
    highest = sizes.get("vocab_size", 49408) - 1
    end = sizes["eos_id"] if sizes.get("pool_type") == "eos" else highest  # else pooled where the id is highest
    lowest = 1 + (end if end < highest else 0)

    def texts(number: int, words: tuple[int, int]) -> Tensor:
        lengths = torch.randint(words[0], words[1] + 1, (number, 1), generator=generator)
        ids, place = torch.randint(lowest, highest, (number, context), generator=generator), torch.arange(context)
        return torch.where(place < lengths, ids, torch.where(place == lengths, end, 0)).to(where)

    captions, phrases = texts(count, WORDS), texts(count * PHRASES, PHRASE_WORDS)
    composed = torch.where(torch.rand(count, 1, generator=generator).to(where) < 0.5, captions, phrases[::PHRASES])
    images = torch.randn(count, 3, encoder.image_size, encoder.image_size, generator=generator).to(where)
    offsets = PHRASES * torch.arange(count + 1, device=where)
    return Batch(images, captions, composed, Phrases(phrases, offsets))


def plain_step(model: DiffComp, batch: Batch) -> Callable[[], Tensor]:
    encoder = model.encoder

    def loss() -> Tensor:
        image, text = encoder.encode_image(batch.images), encoder.encode_text(batch.text_ids)
        scale = inverse_temperature(encoder.logit_scale)
        return (info_nce(image, text, scale) + info_nce(text, image, scale)) / 2

    return loss


def open_clip_step(model: DiffComp, batch: Batch) -> Callable[[], Tensor]:
    theirs, loss = cast(ClipEncoder, model.encoder).model, open_clip.ClipLoss()
    return lambda: loss(*theirs(batch.images, batch.text_ids)[:3])


def diffcomp_step(model: DiffComp, batch: Batch) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda: model(batch, generator)["loss"]


def optimised(model: torch.nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One step of the training loop on the trained parameters."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    where = trained[0].device.type
    optimiser = torch.optim.AdamW(trained, lr=1e-6, fused=where == "cuda")

    def step() -> None:
        with halved(where):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def halved(where: str) -> torch.autocast:
    """bf16 on a GPU; a CPU that emulates it would time the emulation."""
    return torch.autocast(where, torch.bfloat16, enabled=where == "cuda")


def in_turns(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after two rounds to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 2):
        for name, work in works.items():
            started = _now()
            work()
            if number >= 2:
                spent[name].append(_now() - started)
    return {name: median(values) for name, values in spent.items()}


def _now() -> float:
    """Seconds: wall clock on a GPU; on a CPU the processor's, which other programs do not lengthen."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def reached(encoding: dict[str, Any], steps: dict[str, Any]) -> dict[str, Any]:
    """The bounds, and what keeps within them."""
    within = [int(k) for k, cost in encoding["local_blocks"].items() if cost["added"] <= CSS_BOUND]
    return {
        "css_at_most": CSS_BOUND,
        "local_blocks_within": within,
        "step_at_most": STEP_BOUND,
        "step_within": steps["diffcomp_k1"].get("times_plain", float("inf")) <= STEP_BOUND,
    }


def table(encoding: dict[str, Any], steps: dict[str, Any], attention: dict[str, Any]) -> str:
    """The result as Markdown, for the documentation."""
    lines = ["| k | added to plain encoding |", "| --- | ---: |"]
    lines += [f"| {k} | {100 * cost['added']:.1f}% |" for k, cost in encoding["local_blocks"].items()]
    lines += ["", "| step | seconds | in plain steps | peak memory |", "| --- | ---: | ---: | ---: |"]
    for name, step in steps.items():
        if isinstance(step, dict) and "seconds" in step:
            memory = f"{step['peak_gib']:.1f} GiB" if "peak_gib" in step else ""
            ratio = step["seconds"] / steps["plain"]["seconds"] if "seconds" in steps["plain"] else float("nan")
            lines.append(f"| {name.replace('_', ', ')} | {step['seconds']:.3f} | {ratio:.2f} | {memory} |")
        elif isinstance(step, dict):
            lines.append(f"| {name.replace('_', ', ')} | out of memory | | |")
    lines += ["", "| attention | seconds | operators |", "| --- | ---: | --- |"]
    lines += [
        f"| {name} | {cost['seconds']:.3f} | {', '.join(cost['operators'])} |" for name, cost in attention.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
