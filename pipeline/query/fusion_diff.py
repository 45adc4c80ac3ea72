"""Fusion-Diff's methods: the fused query itself, the prior alone, and the prior under control."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pipeline.config import Params
from pipeline.encoders.batching import batches
from pipeline.encoders.identity import mllm_identity, text_encoder_identity
from pipeline.encoders.image_source import ImageSource
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.fusion_diff import Sampler, SamplerSettings, TargetSampler, TextConditions
from pipeline.fusion_diff.checkpoints import is_control_skipped, load_control, load_prior
from pipeline.gpu import accelerate
from pipeline.query.clock import Clock
from pipeline.query.interface import (
    NO_CONTROLS,
    ControlError,
    Controls,
    Descriptions,
    Family,
    Method,
    QueryVectors,
)
from pipeline.query.models import Models
from pipeline.query.sampling import Draws, draw_targets
from pipeline.query.spaces import FusedSpace, ModelSpace
from pipeline.query.turning import turn_away
from pipeline.retrieval.queries import Query
from pipeline.retrieval.spaces import FUSED
from pipeline.runtime import device

NAME = "fusion_diff"
PRIOR, CONTROL = Path("models/prior"), Path("models/control")
NEGATIVE_GUIDANCE = 1.0
"""The guidance scale for a negative text where `retrieve.guidance_scale` is 0."""

FUSED_ONLY, STAGE1_ONLY, FUSION_DIFF = "fused_only", "stage1_only", "fusion_diff"


_method = partial(Method, space=FUSED, family=NAME, group="Fusion-Diff", weights=(PRIOR,))

METHODS = (
    _method(
        FUSED_ONLY,
        "Fused only (A)",
        note="the fused query embedding, no diffusion",
        colour="#f2b8a0",
        order=50,
        controls=frozenset({"negative"}),
    ),
    _method(
        STAGE1_ONLY,
        "Stage 1 only (B)",
        note="the prior alone, from the described target",
        colour="#e8875f",
        order=60,
        controls=frozenset({"negative", "guidance_scale", "hypotheses"}),
    ),
    _method(
        FUSION_DIFF,
        "Fusion-Diff (C)",
        note="the prior with the Control-Adapter",
        colour="#d9481f",
        order=70,
        featured=True,
        weights=(PRIOR, CONTROL),
        controls=frozenset({"negative", "guidance_scale", "control_scale", "hypotheses"}),
    ),
)


def methods(params: Params) -> tuple[Method, ...]:
    """The three methods, whatever is configured; without the Control-Adapter's where Stage 2 was skipped."""
    skipped = is_control_skipped(CONTROL)
    return tuple(method for method in METHODS if not (skipped and method.name == FUSION_DIFF))


def spaces(models: Models) -> dict[str, ModelSpace]:
    """f_M's space."""
    return {FUSED: FusedSpace(models)}


def load(models: Models, only: Collection[str] | None = None) -> FusionDiff:
    """Load the prior, and the Control-Adapter unless Stage 2 was skipped.

    Args:
        models: Opens f_M and the text encoder.
        only: Ignored: the three methods share all models.

    Returns:
        The family.

    Raises:
        ArtifactError: The prior learned another encoder's embeddings, or the adapter another prior.
    """
    params, retrieve, where = models.params, models.params.retrieve, device(models.params.runtime)
    identity = {**mllm_identity(params.encoder), **text_encoder_identity(params.text_encoder)}
    prior, diffusion = load_prior(PRIOR, **identity)
    adapter = None if is_control_skipped(CONTROL) else load_control(CONTROL, prior, PRIOR).to(where)
    prior.to(where)
    speed = retrieve.speed.on(where)
    if speed.fused:
        prior.bfloat16()
        if adapter is not None:
            adapter.bfloat16()
    settings = SamplerSettings.from_params(retrieve)
    samplers: dict[str, TargetSampler] = {STAGE1_ONLY: accelerate(Sampler(prior, None, diffusion, settings), speed)}
    if adapter is not None:
        samplers[FUSION_DIFF] = accelerate(Sampler(prior, adapter, diffusion, settings), speed)
    return FusionDiff(models, samplers)


class FusionDiff(Family):
    """`fused_only` (A) is z_r,delta itself, `stage1_only` (B) the prior, `fusion_diff` (C) the prior under control."""

    def __init__(self, models: Models, samplers: dict[str, TargetSampler]):
        self.methods = {
            method.name: method for method in METHODS if method.name == FUSED_ONLY or method.name in samplers
        }
        self.params, self.samplers, self.spaces = models.params, samplers, spaces(models)
        self._mllm, self._text_encoder, self._describer = models.mllm, models.text_encoder, models.describer

    def answer(
        self,
        queries: Sequence[Query],
        images: ImageSource,
        controls: Controls = NO_CONTROLS,
        methods: Collection[str] | None = None,
        descriptions: Descriptions | None = None,
    ) -> dict[str, QueryVectors]:
        """See `Family.answer`. A negative text brings guidance with it where the parameters have none.

        Raises:
            ControlError: There is a region, or a negative text with a guidance scale of 0.
        """
        names, clock = self.chosen(methods, controls), Clock()
        fused: np.ndarray | None = None
        with clock.part("describe"):
            if {FUSED_ONLY, FUSION_DIFF} & set(names):
                fused = self.fuse(queries, images)
            if descriptions is None and {STAGE1_ONLY, FUSION_DIFF} & set(names):
                descriptions = self._describer.targets(queries, images)
        found = {}
        for name in names:
            if name == FUSED_ONLY and fused is not None:
                found[name] = QueryVectors(FUSED, self._turned(fused, controls), seconds=clock.seconds)
            elif descriptions is not None:
                own = Clock()
                with own.part("sample"):
                    control = torch.from_numpy(fused) if name == FUSION_DIFF and fused is not None else None
                    targets = self._sample(name, queries, descriptions, control, controls)
                found[name] = QueryVectors(FUSED, targets, descriptions, clock.seconds | own.seconds)
        return found

    def fuse(self, queries: Sequence[Query], images: ImageSource) -> np.ndarray:
        """z_r,delta: f_M of Q references and modifications -> float32 [Q, d]."""
        inputs = [MllmInput(query.text, images.image(query.reference_id)) for query in queries]
        parts = list(batches(inputs, self.params.encoder.batch_size))
        return np.concatenate(
            [self._mllm.embed(part) for part in tqdm(parts, desc="z_r,delta", mininterval=5.0, delay=1.0)]
        )

    def _turned(self, fused: np.ndarray, controls: Controls) -> np.ndarray:
        """z_r,delta [Q, d], away from a negative text's own embedding."""
        if not controls.negative:
            return fused
        return turn_away(fused, self._mllm.embed([MllmInput(controls.negative)]), controls.negative_weight)

    def _sample(
        self,
        method: str,
        queries: Sequence[Query],
        descriptions: Descriptions,
        control: torch.Tensor | None,
        controls: Controls,
    ) -> np.ndarray:
        """K targets a query, K / D of them for each of its D descriptions: [Q, K, d]."""
        guidance = controls.guidance_scale
        if controls.negative and guidance is None and self.params.retrieve.guidance_scale == 0.0:
            guidance = NEGATIVE_GUIDANCE
        sampler = self.samplers[method].scaled(guidance, controls.control_scale)
        negative = None
        if controls.negative:
            if sampler.settings.guidance_scale == 0.0:
                raise ControlError(f"negative: {method} needs a guidance scale above 0 to be led away from it")
            negative = TextConditions.from_list(self._text_encoder.encode([controls.negative]))
        ids = [query.query_id for query in queries]
        draws = Draws.from_params(self.params.retrieve, self.params.seed, controls.hypotheses)
        return draw_targets(sampler, ids, self._conditions(ids, descriptions), control, draws, negative)

    def _conditions(self, ids: Sequence[str], descriptions: Descriptions) -> Iterator[TextConditions]:
        """The likeliest descriptions of all queries, then the second ones, and so on."""
        for texts in zip(*descriptions, strict=True):
            yield TextConditions.from_list(self._text_encoder.encode(list(texts)), ids)
