"""Opening f_M: the one place that knows every backend."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import EncoderParams
from pipeline.encoders.mllm.interface import Mllm


def open_mllm(params: EncoderParams, device: str = "auto") -> Mllm:
    """Open the multimodal LLM that the parameters name.

    Args:
        params: The section `encoder`: `backend` chooses transformers or vLLM. With `engine: ray` the model is
            opened by each worker when it is first asked, and here only its width is read.
        device: `auto`, `cpu` or `cuda`; vLLM chooses for itself.

    Returns:
        The model.

    Raises:
        ArtifactError: The weights cannot be loaded.
        ParameterError: The backend is not installed.
    """
    if params.engine == "ray":
        from pipeline.encoders.mllm.replicated import ReplicatedMllm

        return ReplicatedMllm(replace(params, engine="local"), device, open_mllm)
    if params.backend == "vllm":
        from pipeline.encoders.mllm.vllm_backend import VllmMllm

        return VllmMllm(params)
    from pipeline.encoders.mllm.transformers_backend import TransformersMllm

    return TransformersMllm(params, device)
