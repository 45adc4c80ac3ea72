"""BLIP backbones over transformers' BlipForImageTextRetrieval."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from einops import rearrange
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer, BlipConfig, BlipForImageTextRetrieval, BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipEncoderLayer

from pipeline.encoders.dual.interface import DualEncoder, biased_attention, unit
from pipeline.encoders.hub import not_loaded

_checkpoint = functools.partial(checkpoint, use_reentrant=False)


def blip_large_config() -> BlipConfig:
    """BLIP ViT-L/16 as in Table 1, at image size 224 (its text tower has BLIP's 12 layers, not the printed 24)."""
    return BlipConfig(
        vision_config={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 16,
        },
        text_config={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        image_text_hidden_size=256,
    )


class BlipEncoder(DualEncoder):
    """BLIP's contrastive half behind `DualEncoder`. Its cross-attention and matching head stay unused and frozen.

    transformers' model stores no temperature, so one is added (1 / 0.07 at the start).

    Args:
        model: The model.
        tokenizer: The model's own.
        context: The longest text, in tokens.
    """

    logit_scale: nn.Parameter

    def __init__(self, model: BlipForImageTextRetrieval, tokenizer: Any, context: int = 35):
        super().__init__(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        vision = cast(BlipVisionConfig, model.config.vision_config)
        self.model, self.tokenizer, self.context = model, tokenizer, context
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.image_size = cast(int, vision.image_size)
        self.patch_grid = (self.image_size // cast(int, vision.patch_size),) * 2
        self.width, self.dim = vision.hidden_size, model.vision_proj.out_features
        self.pad_id = cast(int, cast(BlipTextConfig, model.config.text_config).pad_token_id)

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> BlipEncoder:
        """A local folder, or a hub name at a pinned revision. Raises ArtifactError when it cannot be loaded."""
        pinned: dict[str, Any] = {"revision": revision} if revision else {}
        try:
            model = BlipForImageTextRetrieval.from_pretrained(name, use_safetensors=True, **pinned)
            return cls(model, AutoTokenizer.from_pretrained(name, **pinned))
        except (OSError, ValueError, SafetensorError) as error:
            raise not_loaded("diffcomp.backbone", str(name), revision or "", error) from None

    @property
    def image_blocks(self) -> nn.ModuleList:
        return self.model.vision_model.encoder.layers

    @property
    def text_blocks(self) -> nn.ModuleList:
        return self.model.text_encoder.encoder.layer

    def image_head(self) -> Iterable[nn.Parameter]:
        yield from self.model.vision_model.post_layernorm.parameters()
        yield from self.model.vision_proj.parameters()

    def text_head(self) -> Iterable[nn.Parameter]:
        yield from self.model.text_proj.parameters()

    def freeze_all_but(self, image_layers: int, text_layers: int) -> None:
        super().freeze_all_but(image_layers, text_layers)
        for block in self.text_blocks:  # never run here: trained parameters must all receive a gradient
            if hasattr(block, "crossattention"):
                block.crossattention.requires_grad_(False)

    @property
    def word_embedding(self) -> nn.Module:
        return self.model.text_encoder.embeddings.word_embeddings

    @property
    def positions(self) -> nn.Parameter:
        return self.model.vision_model.embeddings.position_embedding

    def patchify(self, images: Tensor) -> Tensor:
        return self.model.vision_model.embeddings.patch_embedding(images).flatten(2).transpose(1, 2)  # [B, N, W]

    def assemble(self, patches: Tensor) -> Tensor:
        embeddings = self.model.vision_model.embeddings
        cls = embeddings.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([cls, patches], 1) + embeddings.position_embedding.to(patches.dtype)

    def block(self, block: nn.Module, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """BLIP's own layer takes no bias, so its attention is spelled out here over the same weights."""
        layer = cast(BlipEncoderLayer, block)
        attention = layer.self_attn
        qkv = attention.qkv(layer.layer_norm1(tokens))
        query, key, value = rearrange(
            qkv, "b t (three heads d) -> three b heads t d", three=3, heads=attention.num_heads
        )
        mixed = biased_attention(query, key, value, bias)
        tokens = tokens + attention.projection(rearrange(mixed, "b heads t d -> b t (heads d)"))
        return tokens + layer.mlp(layer.layer_norm2(tokens))

    def project(self, cls: Tensor) -> Tensor:
        return unit(self.model.vision_proj(self.model.vision_model.post_layernorm(cls)))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        length = int((token_ids != self.pad_id).sum(-1).max())
        token_ids = token_ids[:, :length]
        # Set block by block: transformers' switch for a whole model would make the embeddings need a gradient.
        for block in self.text_blocks:
            layer: Any = block
            layer.gradient_checkpointing, layer._gradient_checkpointing_func = self.gradient_checkpointing, _checkpoint
        states = self.model.text_encoder(input_ids=token_ids, attention_mask=(token_ids != self.pad_id).long())
        return unit(self.model.text_proj(states.last_hidden_state[:, 0]))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.context,
            return_tensors="pt",
        ).input_ids
