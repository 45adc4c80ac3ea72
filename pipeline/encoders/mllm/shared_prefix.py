"""Verification by a Qwen-VL: what stands before the candidates of a query goes through the model once.

The keys and values of reference and modification are kept for all candidates, which are one batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, Cache, Qwen2_5_VLForConditionalGeneration

from pipeline.config import RerankerParams
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.windowed_qwen import image_tokens

MODELS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""The architectures whose positions and caches are known to be as here."""


@dataclass(frozen=True)
class Pairs:
    """A reference and modification with N candidates, tokenised. Patches are on the model's device, all else is not."""

    before: BatchFeature
    """What they share."""
    after: BatchFeature
    """Every candidate and what follows it, right-padded."""


def by_query(inputs: Iterable[MllmInput]) -> Iterator[list[MllmInput]]:
    """Neighbours with one reference and modification."""
    for _, pairs in itertools.groupby(inputs, lambda one: (id(one.image), one.text)):
        yield list(pairs)


def tokenised(params: RerankerParams, processor: Any, slot: str, pairs: list[MllmInput], device: torch.device) -> Pairs:
    """The template around the candidates of one query.

    Args:
        params: Holds the template and the bound on images.
        processor: The model's.
        slot: What stands for an image in the model's prompts.
        pairs: One reference and modification with N candidates.
        device: Where images are resized and cut into patches; on a CPU that takes milliseconds an image.
    """
    asked = replace(pairs[0], candidate=None).at_most(params.max_side)
    candidates = [MllmInput(candidate=one.candidate).at_most(params.max_side).candidate for one in pairs]
    before, after = params.template.split("{candidate}")
    shared = before.format(reference=slot if asked.image else "", modification=asked.text)
    options: dict[str, Any] = {"images_kwargs": {"device": str(device)}, "return_tensors": "pt"}
    padded: dict[str, Any] = {"padding": True, "padding_side": "right"} | options
    return Pairs(
        processor(text=[shared], images=asked.images or None, **options),
        processor(text=[slot + after.format()] * len(pairs), images=candidates, **padded),
    )


def last_states(model: Any, pairs: Pairs) -> Tensor:
    """The states from which the pairs' answers follow.

    Args:
        model: One of `MODELS`.
        pairs: N of them.

    Returns:
        [N, width]: the final state of every pair's last token.
    """
    before, after = (_positions(model, part) for part in (pairs.before, pairs.after))
    lengths = pairs.after["attention_mask"].sum(1)
    cache = _states(model, pairs.before, before, None).past_key_values
    cache.batch_repeat_interleave(len(lengths))
    states = _states(model, pairs.after, after + before.max() + 1, cache).last_hidden_state
    return states[torch.arange(len(lengths)), lengths - 1]


def _positions(model: Any, part: BatchFeature) -> Tensor:
    """M-RoPE positions [3, B, T], counted from the part's own first token."""
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    return model.model.get_rope_index(**{name: part[name] for name in names if name in part})[0]


def _states(model: Any, part: BatchFeature, positions: Tensor, cache: Cache | None) -> Any:
    """The language model's output, with its keys and values. The padding on the right is seen by no real token."""
    given = {"position_ids": positions.to(model.device), "past_key_values": cache, "use_cache": True}
    ids = part["input_ids"].to(model.device)
    if not isinstance(model, Qwen2_5_VLForConditionalGeneration):
        images = {name: part[name].to(model.device) for name in ("pixel_values", "image_grid_thw") if name in part}
        return model.model(input_ids=ids, **images, **given)
    embedded = model.model.language_model.embed_tokens(ids)
    if "pixel_values" in part:
        visual = image_tokens(model, part["pixel_values"].to(model.device), part["image_grid_thw"])
        embedded[ids == model.config.image_token_id] = visual.to(embedded.dtype)
    return model.model.language_model(inputs_embeds=embedded, **given)
