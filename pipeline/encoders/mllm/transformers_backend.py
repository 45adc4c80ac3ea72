"""f_M through `transformers`: any Qwen2.5-VL, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from transformers import AutoProcessor, BatchFeature, Qwen2_5_VLForConditionalGeneration

from pipeline.config import EncoderParams
from pipeline.encoders.hub import not_loaded
from pipeline.encoders.mllm.interface import MllmInput, leading_dimensions
from pipeline.encoders.mllm.qwen import IMAGE_SLOT


class TransformersMllm:
    """An `Mllm`. Inputs of one call are one batch: the caller chooses its size.

    Args:
        params: The model's path, revision, precision and templates.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ArtifactError: The model cannot be loaded.
    """

    def __init__(self, params: EncoderParams, device: str = "auto"):
        self.params = params
        self.device = torch.device("cuda" if device in ("auto", "cuda") and torch.cuda.is_available() else "cpu")
        options: dict[str, Any] = {"revision": params.revision} if params.revision else {}
        try:
            self.processor = AutoProcessor.from_pretrained(params.path, **options)
            self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                params.path, use_safetensors=True, dtype=getattr(torch, params.dtype), **options
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise not_loaded("encoder.path", params.path, params.revision, error) from None
        self.processor.tokenizer.padding_side = "left"  # the last position is every sequence's last token
        self.model.eval().to(self.device)
        self.dim: int = params.dim or self.model.config.get_text_config().hidden_size

    def _batch(self, template: str, inputs: Sequence[MllmInput]) -> BatchFeature:
        """Templates filled in, tokenised and left-padded, with the images' patches."""
        texts = [template.format(image=IMAGE_SLOT if one.image else "", text=one.text) for one in inputs]
        images = [one.at_most(self.params.max_side).image for one in inputs if one.image]
        return self.processor(text=texts, images=images or None, padding=True, return_tensors="pt").to(self.device)

    @torch.inference_mode()
    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        """See `Mllm.embed`."""
        states = self.model.model(**self._batch(self.params.embed_template, inputs), use_cache=False).last_hidden_state
        last = F.normalize(states[:, -1].float(), dim=-1)  # [B, D]
        return leading_dimensions(last.cpu().numpy(), self.params.dim)

    @torch.inference_mode()
    def generate(self, inputs: Sequence[MllmInput], max_new_tokens: int, sequences: int = 1) -> list[list[str]]:
        """See `Mllm.generate`."""
        batch = self._batch(self.params.chat_template, inputs)
        tokens = cast(Any, self.model).generate(
            **batch, max_new_tokens=max_new_tokens, do_sample=False, num_beams=sequences, num_return_sequences=sequences
        )
        answers = self.processor.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers = [" ".join(answer.split()) for answer in answers]
        return [answers[first : first + sequences] for first in range(0, len(answers), sequences)]
