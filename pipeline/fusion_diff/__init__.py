"""Fusion-Diff: the DiT prior, its Control-Adapter, the diffusion process and the sampler."""

from pipeline.fusion_diff.conditions import EncodedConditions, TextConditions, check_vectors
from pipeline.fusion_diff.control import ControlAdapter, ControlledPrior
from pipeline.fusion_diff.diffusion import Diffusion
from pipeline.fusion_diff.prior import Prior, PriorSizes
from pipeline.fusion_diff.reference_sampler import ReferenceSampler
from pipeline.fusion_diff.sampler import Sampler, SamplerSettings, TargetSampler
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
    "ReferenceSampler",
    "Sampler",
    "SamplerSettings",
    "TargetSampler",
    "TextConditions",
    "check_vectors",
]
