"""f_M through `transformers`, on a CPU or a GPU: what `AutoModelForImageTextToText` loads.

Images of one size go through a Qwen2.5-VL as one batch; other architectures take their own forward pass.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    Qwen2_5_VLForConditionalGeneration,
)

from pipeline.config import MllmParams, RerankerParams
from pipeline.encoders.hub import not_loaded
from pipeline.encoders.mllm import shared_prefix
from pipeline.encoders.mllm.batched_qwen import language_states, one_window, patch_tokens
from pipeline.encoders.mllm.checkpoint import (
    check_memory,
    embedding_width,
    image_slot,
    leading,
    single_tokens,
)
from pipeline.encoders.mllm.interface import MllmInput, leading_dimensions
from pipeline.encoders.mllm.prompts import before_text, filled_in
from pipeline.encoders.mllm.slot import SLOT, OpenModel


class LoadedModel(OpenModel):
    """A checkpoint's model and processor.

    Raises:
        ArtifactError: They cannot be loaded, or are larger than the GPU.
    """

    def __init__(self, params: MllmParams, device: torch.device):
        if device.type == "cuda":
            check_memory(params, torch.cuda.mem_get_info(device)[0])
        options: dict[str, Any] = {"revision": params.revision} if params.revision else {}
        try:
            self.processor = AutoProcessor.from_pretrained(params.path, **options)
            self.model: Any = AutoModelForImageTextToText.from_pretrained(
                params.path, use_safetensors=True, dtype=getattr(torch, params.dtype), **options
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise not_loaded(f"{params.section}.path", params.path, params.revision, error) from None
        self.slot = image_slot(self.processor)
        self.processor.tokenizer.padding_side = "left"  # the last position is every sequence's last token
        self.model.eval().to(device)

    def close(self) -> None:
        """See `OpenModel.close`."""
        super().close()
        self.model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class TransformersMllm:
    """An `Mllm`. Inputs of one call are one batch: the caller chooses its size.

    Args:
        params: The model's path, revision, precision and template.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ArtifactError: The model cannot be loaded.
        ParameterError: `embedder.dim` exceeds the model's width.
    """

    def __init__(self, params: MllmParams, device: str = "auto"):
        self.params = params
        self.device = torch.device("cuda" if device in ("auto", "cuda") and torch.cuda.is_available() else "cpu")
        self.dim = embedding_width(params)
        self._loaded = self._open()

    def _open(self) -> LoadedModel:
        """The model's weights, shared with whoever has the same, and loaded again if another model closed them."""
        key = (self.params.path, self.params.revision, self.params.dtype, str(self.device))
        self._loaded = SLOT.open(key, lambda: LoadedModel(self.params, self.device), self.device.type == "cuda")
        return self._loaded

    @property
    def model(self) -> Any:
        """The model."""
        return self._open().model

    @property
    def processor(self) -> Any:
        """Its processor."""
        return self._open().processor

    def close(self) -> None:
        """Give the model's memory back."""
        self._loaded.close()

    def _batch(self, inputs: Sequence[MllmInput]) -> BatchFeature:
        """The template filled in, tokenised and left-padded, with the images' patches."""
        texts = [filled_in(self.params, one, self._open().slot) for one in inputs]
        images = [image for one in inputs for image in one.at_most(self.params.max_side).images]
        return self.processor(text=texts, images=images or None, padding=True, return_tensors="pt").to(self.device)

    @torch.inference_mode()
    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        """See `Mllm.embed`."""
        states, lengths = self._states(self._batch(inputs))
        last = states[torch.arange(len(states)), lengths - 1]
        return leading_dimensions(F.normalize(last.float(), dim=-1).cpu().numpy(), leading(self.params))

    @torch.inference_mode()
    def text_states(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """See `Mllm.text_states`."""
        states, lengths = self._states(self._batch([MllmInput(text) for text in texts]))
        skipped = len(self.processor.tokenizer(before_text(self.params), add_special_tokens=False)["input_ids"])
        return [one[skipped:length].float().cpu() for one, length in zip(states, lengths.tolist(), strict=True)]

    def _states(self, batch: BatchFeature) -> tuple[torch.Tensor, torch.Tensor]:
        """Final states of right-padded sequences [B, T, D], and their lengths [B].

        Images of one size go through a Qwen2.5-VL's visual tower as one batch; `transformers` would visit them one by
        one.
        """
        lengths = batch["attention_mask"].sum(1)  # [B]
        width = batch["input_ids"].shape[1]
        # From padding on the left, which generation needs, to padding on the right.
        source = (torch.arange(width, device=self.device) + (width - lengths).unsqueeze(1)) % width
        grids, model = batch.get("image_grid_thw"), self.model
        if not isinstance(model, Qwen2_5_VLForConditionalGeneration):
            return self._own_states(batch, source), lengths
        if grids is None:
            return language_states(model, batch["input_ids"].gather(1, source), None, 0), lengths
        side = int(grids[0, 1])
        ids = batch["input_ids"].gather(1, source)
        begins = (ids == model.config.image_token_id).int().argmax(1)  # a text may stand before the image
        alike = len(grids) == len(lengths) and bool((grids == torch.tensor([1, side, side], device=self.device)).all())
        if not alike or not bool((begins == begins[0]).all()) or not one_window(model, side):
            return self._own_states(batch, source), lengths
        visual = patch_tokens(model, batch["pixel_values"].view(len(ids), side * side, -1))
        return language_states(model, ids, visual, int(begins[0])), lengths

    def _own_states(self, batch: BatchFeature, source: torch.Tensor) -> torch.Tensor:
        """The states [B, T, D] of the architecture's own forward pass, each sequence from its first token on."""
        states = self.model.model(**batch, use_cache=False).last_hidden_state
        return states.gather(1, source.unsqueeze(2).expand_as(states))

    @torch.inference_mode()
    def generate(self, inputs: Sequence[MllmInput], max_new_tokens: int, sequences: int = 1) -> list[list[str]]:
        """See `Mllm.generate`."""
        batch = self._batch(inputs)
        tokens = self.model.generate(
            **batch, max_new_tokens=max_new_tokens, do_sample=False, num_beams=sequences, num_return_sequences=sequences
        )
        answers = self.processor.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers = [" ".join(answer.split()) for answer in answers]
        return [answers[first : first + sequences] for first in range(0, len(answers), sequences)]

    @torch.inference_mode()
    def token_probabilities(self, inputs: Sequence[MllmInput], tokens: Sequence[str]) -> np.ndarray:
        """See `Verifier.token_probabilities`."""
        ids = single_tokens(self.processor.tokenizer, tokens, self.params)
        if self.model.config.model_type in shared_prefix.MODELS and all(one.candidate for one in inputs):
            logits = torch.cat([self._verified(pairs)[:, ids] for pairs in shared_prefix.by_query(inputs)])  # [N, T]
        else:
            logits = self.model(**self._batch(inputs), use_cache=False, logits_to_keep=1).logits[:, -1, ids]
        return logits.float().softmax(dim=1).cpu().numpy()

    def _verified(self, pairs: list[MllmInput]) -> torch.Tensor:
        """The logits of the next token [N, vocabulary] for N candidates of one query."""
        assert isinstance(self.params, RerankerParams)
        parts = shared_prefix.tokenised(self.params, self.processor, self._open().slot, pairs, self.device)
        return self.model.lm_head(shared_prefix.last_states(self.model, parts))
