"""E_text: the frozen text encoder whose token states condition the prior."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.artifacts import ArtifactError
from pipeline.config import TextEncoderParams
from pipeline.encoders.batching import batches
from pipeline.encoders.hub import not_loaded, resolve_model_path
from pipeline.encoders.mllm.interface import Mllm

logger = logging.getLogger(__name__)


class TextEncoder:
    """Token states of a BERT-like encoder or of a T5 encoder, without padding.

    Args:
        params: The section `text_encoder`.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ArtifactError: The weights cannot be loaded.
        ValueError: Their width is not `text_encoder.dim`.
    """

    def __init__(self, params: TextEncoderParams, device: str = "auto"):
        # here: importing models takes seconds, and a training with stored states opens none
        from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer

        self.params = params
        self.device = torch.device("cuda" if device in ("auto", "cuda") and torch.cuda.is_available() else "cpu")
        source: dict[str, Any] = {
            "pretrained_model_name_or_path": resolve_model_path(params.path),
            "revision": params.revision or None,
        }
        try:
            config = AutoConfig.from_pretrained(**source)
            self.tokenizer = AutoTokenizer.from_pretrained(**source)
        except (OSError, ValueError) as error:
            raise _not_loaded(params, error) from None
        if config.hidden_size != params.dim:
            raise ValueError(
                f"text_encoder.dim {params.dim}: the states of {params.path!r} have {config.hidden_size} dimensions"
            )
        dtype = torch.float32 if params.dtype == "float32" else torch.bfloat16
        try:
            self.model = AutoModelForTextEncoding.from_pretrained(
                **source, config=config, dtype=dtype, use_safetensors=True
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise _not_loaded(params, error) from None
        self.model.eval().to(self.device)
        self.compute: Callable[[Sequence[Sequence[int]]], Tensor] = self._compute
        """Token ids of B texts to their states below each other [S, dim]. `pipeline.gpu` puts a quicker one here."""
        self.truncated = 0
        """Texts cut to `text_encoder.max_tokens` so far."""

    @property
    def dim(self) -> int:
        """Width of a token state."""
        return self.params.dim

    def encode(self, texts: Sequence[str], batch_size: int = 64) -> list[Tensor]:
        """The token states of every text. One warning counts the texts that were cut.

        Args:
            texts: The texts.
            batch_size: How many are encoded at once.

        Returns:
            float16 [T_i, dim] on the CPU for each, T_i <= `text_encoder.max_tokens`. Half precision is what the
            shards store, so training and inference see the same numbers.
        """
        before = self.truncated
        states = [state for batch in batches(texts, batch_size) for state in self.encode_batch(batch)]
        self.warn_truncated(before)
        return states

    def encode_batch(self, texts: Sequence[str]) -> list[Tensor]:
        """As `encode`, with the texts as one batch and without the warning."""
        states, lengths = self.pack(texts)
        return list(states.half().cpu().split(lengths))

    @torch.no_grad()
    def pack(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """The states of a batch of B texts where the encoder is, without waiting for a GPU.

        Args:
            texts: The texts.

        Returns:
            Their token states below each other [S, dim], bfloat16 or float16: as near as half precision comes to what
            was computed. And the tokens of each, B numbers that sum up to S.
        """
        tokens = self.tokenizer(list(texts), verbose=False)["input_ids"]
        self.truncated += sum(len(ids) > self.params.max_tokens for ids in tokens)
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.params.max_tokens)["input_ids"]
        states = self.compute(tokens)
        return states.half() if states.dtype == torch.float32 else states, [len(ids) for ids in tokens]

    def _compute(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """In batches of texts of about the same length."""
        lengths = [len(ids) for ids in tokens]
        found: list[Tensor] = [torch.empty(0)] * len(tokens)
        for rows in buckets(lengths, self.params.batch_tokens):
            batch = self.tokenizer.pad({"input_ids": [list(tokens[row]) for row in rows]}, return_tensors="pt")
            batch = batch.to(self.device)
            states = self.model(**batch).last_hidden_state  # [B, T, dim]
            packed = states[batch["attention_mask"].bool()].split([lengths[row] for row in rows])
            for row, state in zip(rows, packed, strict=True):
                found[row] = state
        return torch.cat(found)

    def warn_truncated(self, before: int = 0) -> None:
        """Warn once of the texts that were cut since `truncated` was `before`."""
        if self.truncated > before:
            limit = self.params.max_tokens
            logger.warning(
                "%d texts are longer than text_encoder.max_tokens = %d and were cut", self.truncated - before, limit
            )


def buckets(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Cut a batch into smaller ones of texts of about the same length.

    Args:
        lengths: Tokens of each text.
        tokens: The most that a batch may have with its padding. A single text may have more.

    Returns:
        The rows of each batch: one batch in the given order where all fit, else batches from the longest text to the
        shortest.
    """
    if len(lengths) * max(lengths, default=0) <= tokens:
        return [list(range(len(lengths)))] if lengths else []
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if found and (len(found[-1]) + 1) * lengths[found[-1][0]] <= tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


class MllmTextEncoder(TextEncoder):
    """f_M's own text branch: the final states of a text's tokens and of those that end the embedding template.

    The last one, normalised, is z of the text itself. States of the template's beginning are the same for every text,
    since attention is causal, and are left out.

    Args:
        params: The section `text_encoder`.
        mllm: f_M.

    Raises:
        ValueError: f_M's width is not `text_encoder.dim`.
    """

    def __init__(self, params: TextEncoderParams, mllm: Mllm):
        self.params, self._mllm, self.truncated = params, mllm, 0
        width = mllm.text_states(["a"])[0].shape[1]
        if width != params.dim:
            raise ValueError(f"text_encoder.dim {params.dim}: the states of embedder.path have {width} dimensions")

    @torch.no_grad()
    def pack(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """As that of `TextEncoder`. A text that is too long keeps its last states, which have seen all of it."""
        found = self._mllm.text_states(texts)
        self.truncated += sum(len(states) > self.params.max_tokens for states in found)
        kept = [states[-self.params.max_tokens :].half() for states in found]
        return torch.cat(kept), [len(states) for states in kept]


def open_text_encoder(params: TextEncoderParams, mllm: Callable[[], Mllm], device: str = "auto") -> TextEncoder:
    """E_text, as `text_encoder.kind` says.

    Args:
        params: The section `text_encoder`.
        mllm: Opens f_M, or gives the open one.
        device: As for `TextEncoder`.

    Returns:
        The encoder.

    Raises:
        ArtifactError: The weights cannot be loaded.
        ValueError: Their width is not `text_encoder.dim`.
    """
    return MllmTextEncoder(params, mllm()) if params.kind == "mllm" else TextEncoder(params, device)


def _not_loaded(params: TextEncoderParams, error: Exception) -> ArtifactError:
    """The error for weights that could not be loaded."""
    return not_loaded("text_encoder.path", params.path, params.revision, error)
