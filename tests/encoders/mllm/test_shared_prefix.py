"""Pairs whose common beginning is computed once, against every pair through transformers alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bench.rehearsal.sizes import MLLMS, tiny_mllm
from bench.rehearsal.weights import write_mllm
from pipeline.config import RerankerParams
from pipeline.encoders.mllm import shared_prefix
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.qwen import IMAGE_SLOT
from pipeline.encoders.mllm.transformers_backend import TransformersMllm
from tests.sections import section

PAIR = "<|im_start|>user\n{reference}{modification}?{candidate}<|im_end|>\n<|im_start|>assistant\n"
ANSWERS = ["y", "n", "o"]
SIZES = [(60, 60), (90, 50), (60, 60), (120, 70)]
"""Of a query's candidates: they do not have one number of tokens."""


def drawing(seed: int, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def verifier(request, tmp_path_factory):
    """A tiny random model of one architecture."""
    sizes = next(one for one in MLLMS.values() if one.kind == request.param)
    folder = tmp_path_factory.mktemp("tiny") / request.param
    write_mllm(folder, tiny_mllm(sizes), torch.float32)
    params = section(RerankerParams, path=str(folder), template=PAIR, answers=ANSWERS[:2], revision="")
    found = TransformersMllm(params, "cpu")
    torch.manual_seed(0)
    with torch.no_grad():  # as written, answers hardly depend on the images
        for weight in found.model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return found


@pytest.fixture
def pairs():
    """Two queries, one after the other; the second has no reference."""
    first = MllmInput("make it red", drawing(0, (80, 60)))
    return [
        MllmInput(asked.text, asked.image, candidate=drawing(number, size))
        for asked in (first, MllmInput("a dog in a hat"))
        for number, size in enumerate(SIZES, 1)
    ]


@torch.inference_mode()
def test_probabilities_are_those_of_every_pair_alone(verifier, pairs):
    found = verifier.token_probabilities(pairs, ANSWERS)
    tokens = verifier.processor.tokenizer.convert_tokens_to_ids(ANSWERS)
    for one, row in zip(pairs, found, strict=True):
        text = PAIR.format(reference=IMAGE_SLOT if one.image else "", modification=one.text, candidate=IMAGE_SLOT)
        batch = verifier.processor(text=[text], images=one.images, return_tensors="pt")
        expected = verifier.model(**batch).logits[0, -1, tokens].softmax(0)
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert found[:4, 0].std() > 1e-3 and found[4:, 0].std() > 1e-3, "candidates count"


def test_the_beginning_of_a_query_is_computed_once(verifier, pairs, monkeypatch):
    seen = []
    states = shared_prefix._states
    monkeypatch.setattr(
        shared_prefix, "_states", lambda model, part, *rest: seen.append(part) or states(model, part, *rest)
    )
    verifier.token_probabilities(pairs, ANSWERS)
    assert [len(part["input_ids"]) for part in seen] == [1, 4, 1, 4]
    grids = [len(part.get("image_grid_thw", [])) for part in seen]
    assert grids == [1, 4, 0, 4], "the reference's image is prepared and seen once"


def test_an_image_that_is_too_large_is_reduced_as_elsewhere(verifier, pairs):
    large = [MllmInput(one.text, drawing(9, (300, 200)), candidate=drawing(10, (260, 300))) for one in pairs[:2]]
    reduced = [one.at_most(90) for one in large]
    limited = section(RerankerParams, path=verifier.params.path, template=PAIR, answers=ANSWERS[:2], max_side=90)
    expected = verifier.token_probabilities(reduced, ANSWERS)
    verifier.params, kept = limited, verifier.params
    try:
        np.testing.assert_allclose(verifier.token_probabilities(large, ANSWERS), expected, atol=1e-6)
    finally:
        verifier.params = kept
