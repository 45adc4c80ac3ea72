"""A profile with its models in a scratch folder and its counts small, and nothing else changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.rehearsal.data import Amounts
from bench.rehearsal.sizes import MLLMS, T5S, TINY_TEXT_WIDTH, TINY_WIDTH, tiny_mllm, tiny_t5
from bench.rehearsal.weights import write_clip, write_mllm, write_t5, write_tiny_clip
from pipeline.app.inventory.needs import mllm_sections
from pipeline.config import Params, as_dict

TRAININGS = ("prior", "control", "diffcomp")
GPUS = {"paper": 8, "lab": 1}
"""GPUs that a profile is meant for."""


@dataclass(frozen=True)
class Counts:
    """What a rehearsal makes small."""

    amounts: Amounts
    steps: dict[str, int]
    """Optimiser steps of each training."""
    tokens: int
    """Tokens of every generated caption; random weights do not know when to end."""


FULL = Counts(
    Amounts(pairs=4096, edits=32, queries=16, asked=1024, gallery=1536, side=512, words=12),
    steps={"prior": 8, "control": 8, "diffcomp": 32},
    tokens=120,
)
"""So many that an encoder takes more than one batch of each kind: the first one's time holds what happens only once."""
TINY = Counts(
    Amounts(pairs=24, edits=8, queries=2, asked=2, gallery=56, side=64, words=8), dict.fromkeys(TRAININGS, 2), tokens=8
)


def write_models(params: Params, scratch: Path, tiny: bool) -> dict[str, dict[str, Any]]:
    """Random checkpoints of every model that a profile names.

    Args:
        params: The profile.
        scratch: Below which they go; what is there already stays.
        tiny: The same classes in sizes for a CPU.

    Returns:
        Checkpoint's name -> its folder or file as `path`, with its facts.
    """
    made: dict[str, dict[str, Any]] = {}
    dtype = torch.float32 if tiny else torch.bfloat16
    for name in {section.path: None for section in mllm_sections(params).values()}:
        folder, sizes = scratch / "models" / name.replace("/", "--"), MLLMS[name]
        made[name] = write_mllm(folder, tiny_mllm(sizes) if tiny else sizes, dtype) | {"path": str(folder)}
    text = params.text_encoder
    if text.kind != "mllm":
        folder, t5 = scratch / "models" / text.path.replace("/", "--"), T5S[text.path]
        made[text.path] = write_t5(folder, tiny_t5(t5) if tiny else t5, dtype) | {"path": str(folder)}
    backbone = params.diffcomp.backbone
    folder = scratch / "models" / backbone
    if tiny:
        made[backbone] = write_tiny_clip(folder) | {"path": str(folder)}
    else:
        path = folder / "open_clip_model.safetensors"
        made[backbone] = write_clip(path, backbone) | {"path": str(path)}
    return made


def compose(params: Params, models: dict[str, dict[str, Any]], counts: Counts, tiny: bool) -> dict[str, Any]:
    """The values of `params.yaml`.

    Args:
        params: The profile.
        models: What `write_models` made.
        counts: How much is made and trained.
        tiny: Sizes and precision for a CPU.
    """
    values = as_dict(params)
    for name, section in mllm_sections(params).items():
        values[name] |= {"path": models[section.path]["path"], "revision": ""}
        if "max_new_tokens" in values[name]:
            values[name]["max_new_tokens"] = counts.tokens
        if values[name]["vllm"].get("tensor_parallel_size"):
            values[name]["vllm"]["tensor_parallel_size"] = 1  # of what needs more, few layers are made
    if params.text_encoder.kind != "mllm":
        values["text_encoder"] |= {"path": models[params.text_encoder.path]["path"], "revision": ""}
    made = models[params.diffcomp.backbone]["path"]
    values["diffcomp"] |= {"backbone": made, "pretrained": ""} if tiny else {"pretrained": made}
    values["captions"]["processes"] = min(params.captions.processes, os.cpu_count() or 1)
    values["data"] |= {"max_images": 0, "triplets": 2 * counts.amounts.edits, "triplets_all": 2 * counts.amounts.edits}
    if "data" in values["diffcomp"]:
        values["diffcomp"]["data"]["share"] = 1.0  # of so few pairs
    for name in TRAININGS:
        steps = counts.steps[name]
        values[name] |= {"steps": steps, "warmup_steps": 0, "log_every": 1, "checkpoint_every": steps}
        values[name]["batch_size"] = batch_share(params, name)
    if tiny:
        _for_a_cpu(values, params)
    return values


def batch_share(params: Params, training: str) -> int:
    """One GPU's share of a training's global batch. DiffComp's batch, which its loss compares, stays whole."""
    section = getattr(params, training)
    if training == "diffcomp":
        return section.batch_size
    return max(section.micro_batch_size, section.batch_size // GPUS.get(params.profile, 1))


def _for_a_cpu(values: dict[str, Any], params: Params) -> None:
    values["runtime"] |= {"device": "cpu", "threads": 1}
    for name, section in mllm_sections(params).items():
        values[name] |= {"backend": "transformers", "dtype": "float32", "max_side": 56, "vllm": {}}
        values[name]["batch_size"] = 8
        if getattr(section, "dim", 0):
            values[name]["dim"] = TINY_WIDTH // 2
    width = TINY_WIDTH if params.text_encoder.kind == "mllm" else TINY_TEXT_WIDTH
    values["text_encoder"] |= {"dim": width, "max_tokens": 32}
    if "dtype" in values["text_encoder"]:
        values["text_encoder"]["dtype"] = "float32"
    values["jobs"]["workers"] = 1
    if "processes" in values["captions"]:
        values["captions"]["processes"] = 1
    for name in TRAININGS:
        values[name] |= {"batch_size": 8, "micro_batch_size": 0, "precision": "fp32"}
    for name in ("prior", "control"):
        values[name] |= {"fused": False, "cuda_graph": False, "fp8": False}
    values["prior"] |= {"width": 64, "heads": 4, "depth": 2, "grid": 8}
    values["diffcomp"] |= {"image_layers": 1, "text_layers": 1, "super_patch": 4, "local_blocks": 1, "relatives": 2}
    for variant in values["diffcomp_variants"].values():
        variant.update(
            {key: min(variant[key], 1) for key in ("image_layers", "text_layers", "local_blocks") if key in variant}
        )
    values["retrieve"] |= {"solver_steps": 2, "fast": False, "fp8": False, "batch_size": 8}
    values["report"] |= {"bootstrap": 5}
