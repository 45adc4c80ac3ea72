"""What a checkpoint of f_M says of itself, before its weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import cached_file

from pipeline.artifacts import ArtifactError
from pipeline.config import EmbedderParams, MllmParams, ParameterError
from pipeline.encoders.hub import BYTES, not_loaded
from pipeline.encoders.mllm.qwen import IMAGE_SLOT

OFFLINE = {
    "local_files_only": True,
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
    "_raise_exceptions_for_gated_repo": False,
}
"""Of `cached_file`: looks on this machine and says None where nothing is."""


def read_config(params: MllmParams) -> Any:
    """The configuration of a section's model.

    Raises:
        ArtifactError: It cannot be loaded.
    """
    try:
        return AutoConfig.from_pretrained(params.path, revision=params.revision or None)
    except (OSError, ValueError) as error:
        raise not_loaded(f"{params.section}.path", params.path, params.revision, error) from None


def check_architecture(params: MllmParams, config: Any) -> None:
    """Raise ArtifactError unless a configuration is a model's that sees images and writes text."""
    kind = str(config.model_type)
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        where = f"{params.section}.path {params.path!r}"
        raise ArtifactError(f"{where}: a {kind!r} is no model of images and texts, such as qwen2_vl or qwen3_vl")


def image_slot(processor: Any) -> str:
    """What stands for an image in the prompts of a processor's model. The processor repeats its token as needed."""
    token = getattr(processor, "image_token", None)
    if token is None or token in IMAGE_SLOT:
        return IMAGE_SLOT
    return str(token)


def single_tokens(tokenizer: Any, texts: Sequence[str], params: MllmParams) -> list[int]:
    """The tokens that some texts are.

    Args:
        tokenizer: The model's.
        texts: Each is to be one token.
        params: The model's section, for messages.

    Raises:
        ParameterError: A text is not one token.
    """
    found = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    for text, ids in zip(texts, found, strict=True):
        if len(ids) != 1:
            where = f"{params.section}.answers: {text!r} is {len(ids)} tokens of {params.path}"
            raise ParameterError(f"{where}; an answer has to be one token of the model")
    return [ids[0] for ids in found]


def weight_bytes(params: MllmParams) -> float:
    """Bytes of a section's weights, as they lie on disk; for a hub name that is not there what is known; else 0."""
    folder = Path(params.path)
    if not folder.is_dir():
        found = cached_file(params.path, "config.json", revision=params.revision or None, **OFFLINE)
        folder = Path(found).parent if found else folder
    return float(sum(path.stat().st_size for path in folder.glob("*.safetensors"))) or BYTES.get(params.path, 0.0)


def check_memory(params: MllmParams, free: float, gpus: int = 1) -> None:
    """Raise ArtifactError where a section's weights alone exceed the memory.

    Args:
        params: The section.
        free: Free bytes of one GPU.
        gpus: How many share the model.
    """
    needed = weight_bytes(params)
    if needed > free * gpus:
        where = f"{params.section}.path {params.path!r}"
        have = f"{free / 1e9:,.1f} GB are free" + (f" on each of {gpus} GPUs" if gpus > 1 else "")
        raise ArtifactError(f"{where}: its weights take {needed / 1e9:,.1f} GB of GPU memory, and {have}")


def embedding_width(params: MllmParams, config: Any = None) -> int:
    """d: `embedder.dim`, or the width of a section's model.

    Args:
        params: The section.
        config: The model's configuration; None: it is read.

    Raises:
        ArtifactError: The configuration cannot be loaded, or is none of a model of images and texts.
        ParameterError: `embedder.dim` exceeds the model's width.
    """
    config = config or read_config(params)
    check_architecture(params, config)
    width = int(config.get_text_config().hidden_size)
    dim = leading(params) or width
    if dim > width:
        raise ParameterError(f"{params.section}.dim {dim} exceeds the {width} dimensions of {params.path}")
    return dim


def leading(params: MllmParams) -> int:
    """How many dimensions of an embedding are kept; 0: all."""
    return params.dim if isinstance(params, EmbedderParams) else 0
