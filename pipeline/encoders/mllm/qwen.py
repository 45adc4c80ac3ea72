"""What every Qwen2.5-VL has in common: special tokens and the shape of a patch."""

from __future__ import annotations

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""In the order of their ids."""
IMAGE_SLOT = "<|vision_start|><|image_pad|><|vision_end|>"
"""Where an image stands in a prompt; the processor repeats the pad token, one for each visual token."""
MERGE = 2
"""Patches a side that the visual tower merges into one token."""
TEMPORAL = 2
"""Frames in a patch; a still image is repeated."""
