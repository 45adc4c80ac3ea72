"""f_M as every worker process opens it for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.config import JobsParams, MllmParams
from pipeline.encoders.mllm.checkpoint import embedding_width
from pipeline.encoders.mllm.interface import MakeInput, Mllm, MllmInput, Task, preparer

_OPENING = threading.Lock()


class ReplicatedMllm:
    """An `Mllm` that each process opens when it is first asked. Only the parameters travel between processes.

    Args:
        params: What to open.
        jobs: How its jobs run.
        device: As for `opener`.
        opener: Opens the model, from all of these. It must be importable by name.

    Raises:
        ArtifactError: The model's configuration cannot be loaded, or is none of a model of images and texts.
        ParameterError: `embedder.dim` exceeds the model's width.
    """

    def __init__(
        self, params: MllmParams, jobs: JobsParams, device: str, opener: Callable[[MllmParams, JobsParams, str], Mllm]
    ):
        self.params, self._jobs, self._device, self._opener = params, jobs, device, opener
        self.dim = embedding_width(params)
        self._opened: Mllm | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _replica(self) -> Mllm:
        """This process' own model."""
        with _OPENING:
            if self._opened is None:
                self._opened = self._opener(self.params, self._jobs, self._device)
            return self._opened

    def close(self) -> None:
        """Close this process' own model."""
        if self._opened is not None:
            self._opened.close()

    def prepare(self, inputs: Sequence[MllmInput | MakeInput], task: Task) -> list[MllmInput | ValueError]:
        """As the replica does it; see `Mllm`."""
        return preparer(self._replica(), task)(inputs)

    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        """See `Mllm.embed`."""
        return self._replica().embed(inputs)

    def text_states(self, texts: Sequence[str]) -> list[Tensor]:
        """See `Mllm.text_states`."""
        return self._replica().text_states(texts)

    def generate(self, inputs: Sequence[MllmInput], max_new_tokens: int, sequences: int = 1) -> list[list[str]]:
        """See `Mllm.generate`."""
        return self._replica().generate(inputs, max_new_tokens, sequences)

    def token_probabilities(self, inputs: Sequence[MllmInput], tokens: Sequence[str]) -> np.ndarray:
        """See `Verifier.token_probabilities`."""
        return self._replica().token_probabilities(inputs, tokens)
