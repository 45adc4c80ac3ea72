"""A dual encoder of a few thousand weights, and a handful of captioned images."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pipeline.config import DiffCompParams
from pipeline.diffcomp import DiffComp
from pipeline.encoders.dual.clip import ClipEncoder, new_clip
from tests.sections import section

WORDS = ["[PAD]", "[EOS]", "[UNK]", "a", "red", "blue", "ball", "cat", "dog", "with", "hat"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def make_encoder():
    """A factory: sizes -> an encoder, the same for every call of one test."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]")
    defaults = {
        "vocab_size": len(WORDS),
        "eos_id": 1,
        "image_size": 32,
        "patch_size": 8,
        "vision_width": 64,
        "vision_layers": 3,
        "head_width": 32,
        "text_width": 64,
        "text_layers": 2,
        "text_heads": 2,
        "embed_dim": 48,
        "context": 12,
    }

    def make(**sizes):
        torch.manual_seed(0)
        return ClipEncoder(new_clip({**defaults, **sizes}), tokenizer)

    return make


@pytest.fixture
def pixels():
    """uint8 [6, 3, 32, 32]."""
    return torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def make_model(make_encoder):
    """A variant over a small encoder, by the parameters that differ from the tests' own."""
    small = {"image_layers": 2, "text_layers": 1, "lambda_base": 0.4}
    return lambda **values: DiffComp(make_encoder(), section(DiffCompParams, **{**small, **values}))
