"""What a checkpoint of f_M says of itself, before its weights are loaded."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from pipeline.config import EmbedderParams, MllmParams
from pipeline.encoders.hub import not_loaded


def read_config(params: MllmParams) -> Any:
    """The configuration of a section's model.

    Raises:
        ArtifactError: It cannot be loaded.
    """
    try:
        return AutoConfig.from_pretrained(params.path, revision=params.revision or None)
    except (OSError, ValueError) as error:
        raise not_loaded(f"{params.section}.path", params.path, params.revision, error) from None


def embedding_width(params: MllmParams) -> int:
    """d: `embedder.dim`, or the width of a section's model."""
    return leading(params) or int(read_config(params).get_text_config().hidden_size)


def leading(params: MllmParams) -> int:
    """How many dimensions of an embedding are kept; 0: all."""
    return params.dim if isinstance(params, EmbedderParams) else 0
