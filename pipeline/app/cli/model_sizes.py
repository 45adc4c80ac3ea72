"""`cir info`: sizes and parameter counts of a profile's models, built without memory for their weights.

Pretrained models that a hub holds are named with their revision, not loaded.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.artifacts import ArtifactError, read_json
from pipeline.config import EmbedderParams, Params, TextEncoderParams
from pipeline.encoders.dual.interface import DualEncoder
from pipeline.fusion_diff import ControlAdapter, Prior, PriorSizes


def describe_models(params: Params) -> dict[str, Any]:
    """Describe every model of a profile.

    Args:
        params: The profile's parameters.

    Returns:
        Model -> its sizes, its count of `parameters`, and of `trainable` ones where those are fewer.

    Raises:
        ArtifactError: When a local encoder or backbone is missing or of an unknown kind.
    """
    with torch.device("meta"):
        text = params.text_encoder
        sizes = PriorSizes.from_params(params.prior, _embedding_dim(params.embedder), text.dim, text.max_tokens)
        prior = Prior(sizes)
        adapter = ControlAdapter(prior)
    return {
        "profile": params.profile,
        "embedder": _embedder(params.embedder),
        "text_encoder": _text_encoder(params.text_encoder),
        "prior": {"parameters": _count(prior), "tokens": sizes.tokens, **vars(sizes)},
        "control_adapter": {"trainable": _count(adapter)},
        "dual_encoder": _dual_encoder(params),
        "diffcomp": {name: _variant(params, name) for name in params.diffcomp_variants},
    }


def _count(module: nn.Module, trainable: bool = False) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trainable)


def _embedding_dim(embedder: EmbedderParams) -> int:
    """d: what is configured, else the width of a local embedder."""
    if embedder.dim:
        return embedder.dim
    return int(_mllm_config(embedder)["text_config"]["hidden_size"])


def _mllm_config(embedder: EmbedderParams) -> dict[str, Any]:
    folder = Path(embedder.path)
    if not folder.is_dir():
        raise ArtifactError(f"embedder.path {embedder.path!r}: no local folder, so embedder.dim must say the dimension")
    return read_json(folder / "config.json")


def _embedder(embedder: EmbedderParams) -> dict[str, Any]:
    if not Path(embedder.path).is_dir():
        return {"name": embedder.path, "revision": embedder.revision, "backend": embedder.backend, "dim": embedder.dim}
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**_mllm_config(embedder)))
    return {
        "path": embedder.path,
        "backend": embedder.backend,
        "dim": _embedding_dim(embedder),
        "parameters": _count(model),
        "language_parameters": _count(model.model.language_model),
        "vision_parameters": _count(model.model.visual),
    }


def _text_encoder(encoder: TextEncoderParams) -> dict[str, Any]:
    return {"name": encoder.path, "revision": encoder.revision, "dim": encoder.dim, "max_tokens": encoder.max_tokens}


def _meta_dual_encoder(backbone: str) -> DualEncoder:
    """A DiffComp backbone on the meta device."""
    import open_clip

    from pipeline.encoders.dual.blip import BlipEncoder, BlipForImageTextRetrieval, blip_large_config
    from pipeline.encoders.dual.clip import CLIP_CONFIG, ClipEncoder, build_clip

    if Path(backbone).is_dir() and (Path(backbone) / CLIP_CONFIG).is_file():
        model_cfg = read_json(Path(backbone) / CLIP_CONFIG)["model_cfg"]
    elif backbone in open_clip.list_models():
        model_cfg = open_clip.get_model_config(backbone)
    elif "blip" in backbone.lower() and not Path(backbone).is_dir():
        with torch.device("meta"):
            return BlipEncoder(BlipForImageTextRetrieval(blip_large_config()), tokenizer=None)
    else:
        raise ArtifactError(f"diffcomp.backbone {backbone!r}: not an open_clip folder or name, and not a BLIP name")
    with torch.device("meta"):
        return ClipEncoder(build_clip(copy.deepcopy(model_cfg)), tokenizer=None, model_cfg=model_cfg)


def _dual_encoder(params: Params) -> dict[str, Any]:
    encoder = _meta_dual_encoder(params.diffcomp.backbone)
    return {
        "name": params.diffcomp.backbone,
        "pretrained": params.diffcomp.pretrained,
        "parameters": _count(encoder),
        "image_size": encoder.image_size,
        "patch_grid": list(encoder.patch_grid),
        "dim": encoder.dim,
        "image_layers": encoder.depth,
        "image_width": encoder.width,
        "text_layers": len(encoder.text_blocks),
    }


def _variant(params: Params, name: str) -> dict[str, Any]:
    from pipeline.diffcomp import DiffComp

    variant = params.variants()[name]
    with torch.device("meta"):
        model = DiffComp(_meta_dual_encoder(variant.backbone), variant)
    return {
        "parameters": _count(model),
        "trainable": _count(model, trainable=True),
        "image_layers": variant.image_layers,
        "text_layers": variant.text_layers,
        "super_patches": model.super_patches.count,
        "css": variant.css,
        "psm": variant.psm,
        "dac": variant.dac,
        "text": variant.text,
    }
