"""Opening f_M: the one place that knows every backend."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import JobsParams, MllmParams
from pipeline.encoders.mllm.interface import Mllm


def open_mllm(params: MllmParams, jobs: JobsParams, device: str = "auto") -> Mllm:
    """Open the multimodal LLM that a section names.

    Args:
        params: One of f_M's sections; `backend` chooses transformers or vLLM.
        jobs: With `engine: ray` the model is opened by each worker when it is first asked, and here only its width is
            read.
        device: `auto`, `cpu` or `cuda`; vLLM chooses for itself.

    Returns:
        The model.

    Raises:
        ArtifactError: The weights cannot be loaded.
        ParameterError: The backend is not installed, or `embedder.dim` exceeds the model's width.
    """
    if jobs.engine == "ray":
        from pipeline.encoders.mllm.replicated import ReplicatedMllm

        return ReplicatedMllm(params, replace(jobs, engine="local"), device, open_mllm)
    if params.backend == "vllm":
        from pipeline.encoders.mllm.vllm_backend import VllmMllm

        return VllmMllm(params, jobs.workers)
    from pipeline.encoders.mllm.transformers_backend import TransformersMllm

    return TransformersMllm(params, device)
