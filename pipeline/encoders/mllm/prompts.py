"""The prompts that f_M answers, filled in."""

from __future__ import annotations

from typing import Any

from PIL import Image

from pipeline.config import (
    CaptionerParams,
    DescriberParams,
    EmbedderParams,
    GeneratorParams,
    MllmParams,
    RerankerParams,
)
from pipeline.encoders.mllm.interface import MllmInput


def filled_in(params: MllmParams, one: MllmInput, slot: str) -> str:
    """An input in the template of a section: that of embeddings, of a question, or of a chat.

    Args:
        params: The section.
        one: The input.
        slot: What stands for an image in the model's prompts.
    """
    image = slot if one.image else ""
    if isinstance(params, EmbedderParams):
        instruction = params.query_instruction if one.is_query else params.document_instruction
        return params.embed_template.format(instruction=instruction, image=image, text=one.text)
    if isinstance(params, RerankerParams):
        return params.template.format(reference=image, modification=one.text, candidate=slot if one.candidate else "")
    assert isinstance(params, GeneratorParams)
    return params.chat_template.format(image=image, text=one.text)


def as_prompt(params: MllmParams, one: MllmInput, slot: str) -> dict[str, Any]:
    """An input as vLLM's prompt: its template filled in, and its images, of `max_side` at most.

    Args:
        params: The section.
        one: The input.
        slot: What stands for an image in the model's prompts.
    """
    prompt: dict[str, Any] = {"prompt": filled_in(params, one, slot)}
    images = one.at_most(params.max_side).images
    return prompt | {"multi_modal_data": {"image": images}} if images else prompt


def before_text(params: MllmParams) -> str:
    """What the embedding template says before a text without an image: the same for every text."""
    mark = "\x00"
    return filled_in(params, MllmInput(mark), "").split(mark)[0]


def caption_input(params: CaptionerParams, image: Image.Image) -> MllmInput:
    """An image with the prompt that asks for its caption."""
    return MllmInput(params.caption_prompt, image)


def target_input(params: DescriberParams, reference: Image.Image, modification: str, shared_concept: str) -> MllmInput:
    """A reference with the prompt that asks for the description of its target."""
    return MllmInput(target_prompt(params, modification, shared_concept), reference)


def target_prompt(params: DescriberParams, modification: str, shared_concept: str) -> str:
    """Fusion-Diff's unified instruction (section 6.3): describe the reference as it is after the modification.

    Args:
        params: Holds the template.
        modification: What changes.
        shared_concept: What reference and target have in common; "" where nothing is known of it.

    Returns:
        The prompt's text, without the chat template.
    """
    return params.target_prompt.format(modification=modification, shared_concept=shared_concept)
