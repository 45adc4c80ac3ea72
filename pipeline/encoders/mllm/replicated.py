"""f_M as every worker process opens it for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import AutoConfig

from pipeline.config import EncoderParams
from pipeline.encoders.hub import not_loaded
from pipeline.encoders.mllm.interface import Mllm, MllmInput, Task, preparer

_OPENING = threading.Lock()


class ReplicatedMllm:
    """An `Mllm` that each process opens when it is first asked. Only the parameters travel between processes.

    Args:
        params: What to open.
        device: As for `opener`.
        opener: Opens the model, from the parameters and the device. It must be importable by name.

    Raises:
        ArtifactError: The model's configuration cannot be loaded.
    """

    def __init__(self, params: EncoderParams, device: str, opener: Callable[[EncoderParams, str], Mllm]):
        self.params, self._device, self._opener = params, device, opener
        try:
            config = AutoConfig.from_pretrained(params.path, revision=params.revision or None)
        except (OSError, ValueError) as error:
            raise not_loaded("encoder.path", params.path, params.revision, error) from None
        self.dim: int = params.dim or config.get_text_config().hidden_size
        self._opened: Mllm | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _replica(self) -> Mllm:
        """This process' own model."""
        with _OPENING:
            if self._opened is None:
                self._opened = self._opener(self.params, self._device)
            return self._opened

    def prepare(self, one: MllmInput, task: Task) -> MllmInput:
        """As the replica does it; see `Mllm`."""
        return preparer(self._replica(), task)(one)

    def embed(self, inputs: Sequence[MllmInput]) -> np.ndarray:
        """See `Mllm.embed`."""
        return self._replica().embed(inputs)

    def text_states(self, texts: Sequence[str]) -> list[Tensor]:
        """See `Mllm.text_states`."""
        return self._replica().text_states(texts)

    def generate(self, inputs: Sequence[MllmInput], max_new_tokens: int, sequences: int = 1) -> list[list[str]]:
        """See `Mllm.generate`."""
        return self._replica().generate(inputs, max_new_tokens, sequences)
