"""Random weights as a hub lays them out: config, safetensors, tokenizer and processor of the same classes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
    PretrainedConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    T5Config,
    T5EncoderModel,
)

from bench.rehearsal.sizes import IDS, MllmSizes, T5Sizes
from bench.rehearsal.words import qwen_tokenizer, t5_tokenizer
from pipeline.backbones.clip import clip_tokenizer
from pipeline.encoders.dual.clip import ClipEncoder, ClipSizes, new_clip

SHARD_BYTES = 4 * 2**30
PROCESSORS = {
    "qwen2_vl": (Qwen2VLProcessor, Qwen2VLVideoProcessor),
    "qwen2_5_vl": (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor),
    "qwen3_vl": (Qwen3VLProcessor, Qwen3VLVideoProcessor),
}
DONE = "made.json"
"""Written last: a folder that has it is whole."""


def write_mllm(folder: Path, sizes: MllmSizes, dtype: torch.dtype = torch.bfloat16) -> dict[str, float]:
    """A multimodal LLM, unless the folder holds the same one already.

    Args:
        folder: Where to.
        sizes: The model's sizes; `layers` may leave some out.
        dtype: Of the weights.

    Returns:
        `parameters` and `layers_share`, the share of its layers that are made.
    """
    made = {"kind": sizes.kind, "text": sizes.text, "vision": sizes.vision, "layers": sizes.made, "dtype": str(dtype)}
    if (found := _finished(folder, made)) is not None:
        return found
    text = {key: value for key, value in sizes.text.items()} | {"num_hidden_layers": sizes.made}
    values = {"text_config": text, "vision_config": sizes.vision, "tie_word_embeddings": sizes.tied, **IDS}
    text["tie_word_embeddings"] = sizes.tied
    config = AutoConfig.for_model(sizes.kind, **values)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    config.architectures, config.dtype = [type(model).__name__], dtype
    parameters = _write(folder, model, config, dtype, lambda name: _hub_name(name, sizes))
    GenerationConfig(eos_token_id=[151645, 151643], pad_token_id=151643, do_sample=False).save_pretrained(folder)
    tokenizer = qwen_tokenizer()
    processor, video = PROCESSORS[sizes.kind]
    patches = {"patch_size": sizes.vision["patch_size"], "merge_size": 2, "temporal_patch_size": 2}
    size = dict(zip(("shortest_edge", "longest_edge"), sizes.pixels, strict=True))
    processor(Qwen2VLImageProcessor(**patches, size=size), tokenizer, video(**patches)).save_pretrained(folder)
    return _finish(folder, made, {"parameters": parameters, "layers_share": sizes.share})


def write_t5(folder: Path, sizes: T5Sizes, dtype: torch.dtype = torch.bfloat16) -> dict[str, float]:
    """A T5's encoder; arguments and result as for `write_mllm`."""
    made = {"kind": "t5", "values": sizes.values, "dtype": str(dtype)}
    if (found := _finished(folder, made)) is not None:
        return found
    config = T5Config(**sizes.values)
    with torch.device("meta"):
        model = T5EncoderModel(config)
    config.architectures, config.dtype = ["T5ForConditionalGeneration"], dtype
    parameters = _write(
        folder, model, config, dtype, lambda name: "" if name == "encoder.embed_tokens.weight" else name
    )
    t5_tokenizer().save_pretrained(folder)
    return _finish(folder, made, {"parameters": parameters, "layers_share": 1.0})


def write_clip(path: Path, name: str) -> dict[str, float]:
    """One of open_clip's models as a file of safetensors, which `diffcomp.pretrained` takes."""
    made = {"kind": name}
    if (found := _finished(path.parent, made)) is not None:
        return found
    model = open_clip.create_model(name, precision="fp32")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return _finish(path.parent, made, {"parameters": sum(p.numel() for p in model.parameters()), "layers_share": 1.0})


def write_tiny_clip(folder: Path) -> dict[str, float]:
    """A small open_clip folder for a CPU."""
    if (found := _finished(folder, {})) is not None:
        return found
    tokenizer = clip_tokenizer(qwen_tokenizer())
    sizes = ClipSizes(
        len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, image_size=32, patch_size=4,
        vision_width=32, vision_layers=2, head_width=16, text_width=32, text_layers=2, text_heads=2, embed_dim=32,
    )  # fmt: skip
    model = new_clip(vars(sizes))
    ClipEncoder(model, tokenizer, sizes.model_cfg()).save(folder)
    return _finish(folder, {}, {"parameters": sum(p.numel() for p in model.parameters()), "layers_share": 1.0})


def _hub_name(name: str, sizes: MllmSizes) -> str:
    """A weight's name as the hub's files have it; "" for one that they leave out."""
    if name == "lm_head.weight" and sizes.tied:
        return ""
    if sizes.kind == "qwen3_vl":
        return name
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def _write(folder: Path, model: nn.Module, config: PretrainedConfig, dtype: torch.dtype, hub_name) -> int:
    """Weights in shards with their index. Returns the number of parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    named = [(hub, value) for name, value in model.state_dict().items() if (hub := hub_name(name))]
    shards = list(_shards(named, dtype))
    index = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        save_file({name: _random(name, shape, dtype) for name, shape in shard}, folder / file, {"format": "pt"})
        index |= dict.fromkeys((name for name, _ in shard), file)
    count = sum(math.prod(value.shape) for _, value in named)
    if len(shards) > 1:
        content = {"metadata": {"total_size": count * dtype.itemsize}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=1))
    return count


def _shards(named: list[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[list[tuple[str, torch.Size]]]:
    shard, size = [], 0
    for name, value in named:
        if shard and size + value.numel() * dtype.itemsize > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, value.shape))
        size += value.numel() * dtype.itemsize
    yield shard


def _random(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Norms are one, biases zero, and the rest is drawn on the GPU where there is one.

    Token embeddings are small: where they are also the output's weights, a model would repeat its last token.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=dtype)
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    scale = 0.001 if "embed_tokens" in name else 0.02
    return torch.empty(shape, dtype=dtype, device=device).normal_(0, scale).cpu()


def _finished(folder: Path, made: dict) -> dict[str, float] | None:
    path = folder / DONE
    content = json.loads(path.read_text()) if path.is_file() else {}
    if content.get("made") == json.loads(json.dumps(made)):
        return content["facts"]
    torch.manual_seed(
        0
    )  # for what is drawn now: random weights may say nothing at all, and a caption must say something
    return None


def _finish(folder: Path, made: dict, facts: dict[str, float]) -> dict[str, float]:
    (folder / DONE).write_text(json.dumps({"made": made, "facts": facts}))
    return facts
