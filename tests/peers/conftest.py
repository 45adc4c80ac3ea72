"""A dual encoder of a few thousand weights that knows the placeholder as a word."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pipeline.encoders.dual.clip import ClipEncoder, new_clip

WORDS = ["[PAD]", "[EOS]", "[UNK]", "a", "red", "blue", "ball", "cat", "dog", "with", "hat", "*", "photo", "of"]
SIZES = {
    "vocab_size": len(WORDS),
    "eos_id": 1,
    "image_size": 32,
    "patch_size": 8,
    "vision_width": 32,
    "vision_layers": 2,
    "head_width": 16,
    "text_width": 32,
    "text_layers": 2,
    "text_heads": 2,
    "embed_dim": 24,
    "context": 12,
}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]")
    return ClipEncoder(new_clip(SIZES), tokenizer).eval().requires_grad_(False)


@pytest.fixture
def word_of(encoder):
    """Words -> their embeddings in the text tower, [B, E]."""
    return lambda *words: encoder.word_embedding.weight[[WORDS.index(word) for word in words]]


def always(peer, words):
    """Let a peer's mapper say these words [B, E], whatever it reads; gradients still reach it."""
    peer.mapper.forward = lambda features, generator=None: words + 0.0 * peer.mapper.layers[-1].bias
    return peer
