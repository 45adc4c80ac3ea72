"""Randomly initialised CLIP and SigLIP in the hub's layout, as a download leaves them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 12}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = ["<pad>", "<unk>", "a", "red", "fox", "on", "snow", "dog", "cat", "</s>"]


def save_siglip(folder: Path) -> Path:
    """A SigLIP whose patch grid is 7 x 7."""
    torch.manual_seed(0)
    text, vision = {**TEXT, "max_position_embeddings": 16}, {**VISION, "image_size": 28, "patch_size": 4}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """A CLIP whose patch grid is 7 x 7."""
    torch.manual_seed(0)
    text = {**TEXT, "max_position_embeddings": 16, "eos_token_id": 9, "bos_token_id": 2, "pad_token_id": 0}
    vision = {**VISION, "image_size": 35, "patch_size": 5}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 35}, crop_size={"height": 35, "width": 35}).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


def _save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    ).save_pretrained(folder)
