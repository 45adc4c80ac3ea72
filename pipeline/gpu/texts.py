"""The text encoder made quick, from outside, for a training that encodes its captions itself."""

from __future__ import annotations

from torch import nn

from pipeline.encoders.text import TextEncoder
from pipeline.gpu.accelerate import check_fp8


def can_pack(model: nn.Module) -> bool:
    """Whether a text encoder is a T5 with a gated GELU (v1.1, Flan) and heads of a power of two."""
    from transformers import T5EncoderModel  # here: a training with stored states waits for no models

    if not isinstance(model, T5EncoderModel):
        return False
    channels = model.config.d_kv
    gated = model.config.is_gated_act and model.config.dense_act_fn == "gelu_new"
    return bool(gated) and channels >= 16 and channels & (channels - 1) == 0


def pack_texts(encoder: TextEncoder) -> TextEncoder:
    """Make a text encoder quick, in place, where it is a T5 on a GPU and `text_encoder.dtype` is not float32.

    Args:
        encoder: The encoder.

    Returns:
        The same encoder.

    Raises:
        ValueError: 8-bit products on a GPU that has none, or with sizes that these cannot have.
    """
    params = encoder.params
    if params.kind == "mllm" or params.dtype == "float32" or encoder.device.type != "cuda":
        return encoder
    if params.dtype == "fp8":
        check_fp8()
    if can_pack(encoder.model):
        from pipeline.gpu.t5 import PackedT5  # wants Triton, which only comes with a GPU's build of torch

        encoder.compute = PackedT5(encoder.model, params.max_tokens, params.dtype == "fp8", params.batch_tokens)
    return encoder
