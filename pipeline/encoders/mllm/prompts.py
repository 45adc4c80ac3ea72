"""The prompts that f_M answers, filled in."""

from __future__ import annotations

from PIL import Image

from pipeline.config import EncoderParams
from pipeline.encoders.mllm.interface import MllmInput


def before_inputs(template: str) -> str:
    """What a template says before its image and its text: the same for every input."""
    return template.split("{")[0]


def caption_input(params: EncoderParams, image: Image.Image) -> MllmInput:
    """An image with the prompt that asks for its caption."""
    return MllmInput(params.caption_prompt, image)


def target_input(params: EncoderParams, reference: Image.Image, modification: str, shared_concept: str) -> MllmInput:
    """A reference with the prompt that asks for the description of its target."""
    return MllmInput(target_prompt(params, modification, shared_concept), reference)


def target_prompt(params: EncoderParams, modification: str, shared_concept: str) -> str:
    """Fusion-Diff's unified instruction (section 6.3): describe the reference as it is after the modification.

    Args:
        params: Holds the template.
        modification: What changes.
        shared_concept: What reference and target have in common; "" where nothing is known of it.

    Returns:
        The prompt's text, without the chat template.
    """
    return params.target_prompt.format(modification=modification, shared_concept=shared_concept)
