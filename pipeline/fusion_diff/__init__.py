"""Fusion-Diff: the DiT prior, its Control-Adapter, the diffusion process and the sampler."""

from pipeline.fusion_diff.conditions import EncodedConditions, TextConditions, check_vectors
from pipeline.fusion_diff.control import ControlAdapter, ControlledPrior, controlled
from pipeline.fusion_diff.diffusion import Diffusion
from pipeline.fusion_diff.prior import Prior, PriorSizes
from pipeline.fusion_diff.sampler import Sampler, SamplerSettings
from pipeline.fusion_diff.tasks import ControlTask, PriorTask

__all__ = [
    "ControlAdapter",
    "ControlTask",
    "ControlledPrior",
    "Diffusion",
    "EncodedConditions",
    "Prior",
    "PriorSizes",
    "PriorTask",
    "Sampler",
    "SamplerSettings",
    "TextConditions",
    "check_vectors",
    "controlled",
]
