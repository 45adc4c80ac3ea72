"""Many candidates in one sequence against every pair in a sequence of its own, through transformers."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from pipeline.backbones.sequences import tokenise
from pipeline.encoders.mllm.batched_qwen import visual_tokens
from pipeline.encoders.mllm.packed_pairs import PairTokens, last_states
from pipeline.encoders.mllm.qwen import IMAGE_SLOT

BEFORE, AFTER = "<|im_start|>user\n{image}{text}?", "<|im_end|>\n<|im_start|>assistant\n"


@torch.inference_mode()
def test_packed_pairs_equal_the_forward_of_transformers(make, tiny_mllm):
    model, processor = tiny_mllm.model, tiny_mllm.processor
    drawn = [[Image.open(io.BytesIO(make.png(4 * row + place))) for place in range(4)] for row in range(2)]
    texts = [BEFORE.format(image=IMAGE_SLOT, text=text) for text in make.texts[:2]]
    expected = []
    for text, (reference, *candidates) in zip(texts, drawn, strict=True):
        for candidate in candidates:
            batch = processor(text=[text + IMAGE_SLOT + AFTER], images=[reference, candidate], return_tensors="pt")
            expected.append(model.model(**batch, use_cache=False).last_hidden_state[0, -1])
    settings = processor.image_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (settings.image_mean, settings.image_std))
    arrays = [torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for row in drawn for image in row]
    visual = visual_tokens(model, (torch.stack(arrays) - mean) / std).unflatten(0, (2, 4))
    slots = "<|vision_start|>" + "<|image_pad|>" * visual.shape[2] + "<|vision_end|>"
    filled = [text.replace(IMAGE_SLOT, slots) for text in texts]
    before, after = tokenise(processor.tokenizer, filled), tokenise(processor.tokenizer, [slots + AFTER])
    lengths = before.mask.sum(1)
    assert lengths[0] != lengths[1], "one of the two is padded"
    at = int((before.ids[0] == model.config.image_token_id).nonzero()[0])
    found = last_states(model, PairTokens(before.ids, lengths, at, after.ids[0], 1), visual[:, 0], visual[:, 1:])
    torch.testing.assert_close(found.flatten(0, 1), torch.stack(expected), atol=1e-4, rtol=1e-4)
