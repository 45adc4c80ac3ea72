"""The visual tower with windows in batches, against transformers' own."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pipeline.encoders.mllm.windowed_qwen import alike, image_tokens

NO_TOKENS = {"bos_token_id": None, "eos_token_id": None}
GRIDS = [[1, 4, 6], [1, 10, 8], [1, 4, 6], [1, 2, 2]]
"""Of 4 x 4 patches a window: whole ones, and all kinds of cut ones."""


@pytest.fixture
def windowed():
    """A random model whose middle layer alone sees more than a window."""
    vision = {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 16}
    vision |= {"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    text |= {"intermediate_size": 24, "vocab_size": 32, "rope_parameters": {"mrope_section": [1, 1, 2]}}
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(vision_config=vision, text_config=text | NO_TOKENS)
    ).eval()
    with torch.no_grad():  # the initial weights are so small that attention would hardly tell patches apart
        for weight in model.model.visual.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return model


@torch.inference_mode()
def test_the_tokens_are_those_of_transformers_own_tower(windowed):
    grids = torch.tensor(GRIDS)
    patches = torch.randn(int(grids.prod(1).sum()), 3 * 2 * 4 * 4)
    expected = windowed.model.visual(patches, grid_thw=grids).pooler_output
    found = image_tokens(windowed, patches, grids)
    assert found.shape == (len(patches) // 4, 16) and expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    windowed.model.visual.config.fullatt_block_indexes = [0, 1, 2]
    assert (image_tokens(windowed, patches, grids) - expected).abs().max() > 0.1, "windows count"


def test_patches_of_one_segment_come_together_and_segments_of_one_length():
    found = alike(torch.tensor([5, 3, 5, 9, 3, 7]))
    assert [rows.tolist() for rows in found] == [[[5], [3]], [[1, 4], [0, 2]]]
