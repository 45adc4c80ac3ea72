"""The training stages' workspace, and models that answer without weights."""

import zlib

import numpy as np
import pytest
import torch

from pipeline.config import Params
from pipeline.query.models import Models
from tests.stages.conftest import DIM, TEXT_DIM, unit, workspace

__all__ = ["workspace"]


class FakeMllm:
    """Vectors from the inputs' texts, and always the same description, of which a second one is empty."""

    dim = DIM

    def embed(self, inputs):
        seeds = [zlib.crc32(one.text.encode() + (one.image.tobytes() if one.image else b"")) for one in inputs]
        return np.concatenate([unit(1, seed) for seed in seeds])

    def generate(self, inputs, max_new_tokens, sequences=1):
        return [["" if number else "a cat" for number in range(sequences)] for _ in inputs]


class FakeTextEncoder:
    def encode(self, texts):
        return [torch.full((len(text.split()), TEXT_DIM), 0.1 * len(text)) for text in texts]


def fake_models(params: Params) -> Models:
    """Models whose f_M and text encoder need no weights."""
    models = Models(params)
    models.embedder, models.text_encoder = FakeMllm(), FakeTextEncoder()
    models.writer = models.embedder
    return models


@pytest.fixture
def models(workspace) -> Models:
    return fake_models(workspace)
