"""Fusion-Diff answers queries."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.artifacts import sha256_file
from pipeline.artifacts.model_files import WEIGHTS, is_skipped
from pipeline.config import RetrieveParams
from pipeline.encoders.batching import batches, shown_batches
from pipeline.encoders.identity import mllm_identity, text_encoder_identity
from pipeline.encoders.image_source import ImageSource
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.fusion_diff import Sampler, SamplerSettings, TargetSampler, TextConditions
from pipeline.fusion_diff.anchor import fused_description, towards
from pipeline.fusion_diff.checkpoints import load_control, load_prior
from pipeline.gpu import accelerate
from pipeline.query.clock import Clock
from pipeline.query.fusion_diff import (
    CONTROL,
    DESCRIPTION,
    FUSED_DESCRIPTION,
    FUSED_ONLY,
    FUSION_DIFF,
    PRIOR,
    STAGE1_ONLY,
    STUDENT,
    UNSAMPLED,
    methods,
)
from pipeline.query.interface import (
    NO_CONTROLS,
    ControlError,
    Controls,
    Descriptions,
    Family,
    QueryVectors,
)
from pipeline.query.models import Models
from pipeline.query.sampling import Draws, draw_targets
from pipeline.query.spaces import FusedSpace, ModelSpace
from pipeline.query.turning import turn_away
from pipeline.retrieval.queries import Query
from pipeline.retrieval.spaces import FUSED
from pipeline.runtime import device

NEGATIVE_GUIDANCE = 1.0
"""The guidance scale for a negative text where `retrieve.guidance_scale` is 0."""


def spaces(models: Models) -> dict[str, ModelSpace]:
    """f_M's space, where there is an f_M."""
    return {FUSED: FusedSpace(models)} if models.params.embedder.path else {}


def load(models: Models, only: Collection[str] | None = None) -> FusionDiff:
    """Load the prior, and the Control-Adapter unless Stage 2 was skipped.

    Args:
        models: Opens f_M and the text encoder.
        only: Without a method that samples, neither the prior nor the adapter is loaded.

    Returns:
        The family.

    Raises:
        ArtifactError: The prior learned another encoder's embeddings, or the adapter another prior.
    """
    params, retrieve, where = models.params, models.params.retrieve, device(models.params.runtime)
    if only is not None and set(only) <= set(UNSAMPLED):
        return FusionDiff(models, {})
    identity = {**mllm_identity(params.embedder), **text_encoder_identity(params.text_encoder, params.embedder)}
    if retrieve.sampler == "distilled":
        return FusionDiff(models, distilled_samplers(retrieve, where, identity))
    prior, diffusion = load_prior(PRIOR, **identity)
    adapter = None if is_skipped(CONTROL) else load_control(CONTROL, prior, PRIOR).to(where)
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


def distilled_samplers(retrieve: RetrieveParams, where: str, identity: dict[str, Any]) -> dict[str, TargetSampler]:
    """The student's samplers, of the prior alone and under control.

    Raises ArtifactError where there is no student, or one of another teacher than the prior and adapter beside it.
    """
    from pipeline.distill import StudentSampler, StudentSettings  # here: the default has no student
    from pipeline.distill.checkpoints import load_student

    weights = {folder.name: folder / WEIGHTS for folder in (PRIOR, CONTROL)}
    teacher = {name: sha256_file(path) for name, path in weights.items() if path.is_file()}
    expected = {"teacher": teacher} if len(teacher) == len(weights) else {}
    student, jumps = load_student(STUDENT, **identity, **expected)
    speed = retrieve.speed.on(where)
    student.to(where, torch.bfloat16 if speed.fused else torch.float32)
    settings = StudentSettings.from_params(retrieve)
    return {
        name: accelerate(StudentSampler(student, jumps, settings, controlled=name == FUSION_DIFF), speed)
        for name in (STAGE1_ONLY, FUSION_DIFF)
    }


class FusionDiff(Family):
    """What f_M says by itself, and what is sampled.

    `fused_only` (A) is z_r,delta, `description` the described target's text, `fused_description` half way between the
    two. `stage1_only` (B) samples from the prior, `fusion_diff` (C) from the prior under control.
    """

    def __init__(self, models: Models, samplers: dict[str, TargetSampler]):
        known = methods(models.params)
        self.methods = {method.name: method for method in known if method.name in (*UNSAMPLED, *samplers)}
        self.params, self.samplers, self.spaces = models.params, samplers, spaces(models)
        self._embedder, self._text_encoder, self._describer = models.embedder, models.text_encoder, models.describer

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
        described: np.ndarray | None = None
        with clock.part("describe"):
            if {FUSED_ONLY, FUSED_DESCRIPTION, FUSION_DIFF} & set(names):
                fused = self.fuse(queries, images)
            if descriptions is None and set(names) - {FUSED_ONLY}:
                descriptions = self._describer.targets(queries, images)
            if descriptions is not None and self._described(names):
                described = self.describe(descriptions)
        own = self._unsampled(fused, described)
        found = {}
        for name in names:
            if name in UNSAMPLED:
                texts = None if name == FUSED_ONLY else descriptions
                found[name] = QueryVectors(FUSED, self._turned(own[name], controls), texts, clock.seconds)
            elif descriptions is not None:
                sampling = Clock()
                with sampling.part("sample"):
                    steering = own if name == FUSION_DIFF else {}
                    targets = self._sample(name, queries, descriptions, steering, controls)
                found[name] = QueryVectors(FUSED, targets, descriptions, clock.seconds | sampling.seconds)
        return found

    def infer_texts(self, queries: Sequence[Query], images: ImageSource) -> None:
        """See `Family.infer_texts`."""
        self._describer.targets(queries, images)

    def _described(self, names: Collection[str]) -> bool:
        """Whether one of these methods needs the descriptions' own embeddings."""
        anchored = self.params.retrieve.anchor > 0.0 or self.params.control.signal == FUSED_DESCRIPTION
        return bool({DESCRIPTION, FUSED_DESCRIPTION} & set(names)) or (FUSION_DIFF in names and anchored)

    def describe(self, descriptions: Descriptions) -> np.ndarray:
        """z of each query's likeliest description, f_M of the text alone -> float32 [Q, d]."""
        inputs = [MllmInput(texts[0]) for texts in descriptions]
        return np.concatenate([self._embedder.embed(part) for part in batches(inputs, self.params.embedder.batch_size)])

    def _unsampled(self, fused: np.ndarray | None, described: np.ndarray | None) -> dict[str, np.ndarray]:
        """The vectors [Q, d] that need no diffusion, by method, as far as their parts are there."""
        found = {FUSED_ONLY: fused, DESCRIPTION: described}
        if fused is not None and described is not None:
            both = fused_description(torch.from_numpy(fused), torch.from_numpy(described))
            found[FUSED_DESCRIPTION] = both.numpy()
        return {name: vectors for name, vectors in found.items() if vectors is not None}

    def fuse(self, queries: Sequence[Query], images: ImageSource) -> np.ndarray:
        """z_r,delta: f_M of Q references and modifications -> float32 [Q, d]."""
        side = self.params.embedder.max_side

        def as_input(query: Query) -> MllmInput:
            return MllmInput(query.text, images.image(query.reference_id, side), is_query=True)

        parts = shown_batches(queries, self.params.embedder.batch_size, "z_r,delta", "query")
        return np.concatenate([self._embedder.embed([as_input(query) for query in part]) for part in parts])

    def _turned(self, fused: np.ndarray, controls: Controls) -> np.ndarray:
        """z_r,delta [Q, d], away from a negative text's own embedding."""
        if not controls.negative:
            return fused
        return turn_away(fused, self._embedder.embed([MllmInput(controls.negative)]), controls.negative_weight)

    def _sample(
        self,
        method: str,
        queries: Sequence[Query],
        descriptions: Descriptions,
        steering: Mapping[str, np.ndarray],
        controls: Controls,
    ) -> np.ndarray:
        """K targets a query, K / D of them for each of its D descriptions, drawn towards the anchor: [Q, K, d].

        Args:
            method: The method that samples.
            queries: Q queries.
            descriptions: Of their targets.
            steering: What `_unsampled` found, for a method under control; empty: the prior alone.
            controls: What a person adds.
        """
        guidance = controls.guidance_scale
        if controls.negative and guidance is None and self.params.retrieve.guidance_scale == 0.0:
            guidance = NEGATIVE_GUIDANCE
        try:
            sampler = self.samplers[method].scaled(guidance, controls.control_scale)
        except ValueError as error:  # more than a student has learned
            raise ControlError(str(error)) from None
        negative = None
        if controls.negative:
            if sampler.settings.guidance_scale == 0.0:
                raise ControlError(f"negative: {method} needs a guidance scale above 0 to be led away from it")
            if not sampler.settings.guided_steps:
                raise ControlError(f"negative: {method} takes none with retrieve.sampler distilled; choose dpm")
            negative = TextConditions.from_list(self._text_encoder.encode([controls.negative]))
        ids = [query.query_id for query in queries]
        draws = Draws.from_params(self.params.retrieve, self.params.seed, controls.hypotheses)
        signal = steering.get(FUSED_DESCRIPTION if self.params.control.signal == FUSED_DESCRIPTION else FUSED_ONLY)
        control = None if signal is None else torch.from_numpy(signal)
        targets = draw_targets(sampler, ids, self._conditions(ids, descriptions), control, draws, negative)
        if not steering or not self.params.retrieve.anchor:
            return targets
        anchor = torch.from_numpy(steering[FUSED_DESCRIPTION])
        return towards(torch.from_numpy(targets), anchor, self.params.retrieve.anchor).numpy()

    def _conditions(self, ids: Sequence[str], descriptions: Descriptions) -> Iterator[TextConditions]:
        """The likeliest descriptions of all queries, then the second ones, and so on."""
        for texts in zip(*descriptions, strict=True):
            yield TextConditions.from_list(self._text_encoder.encode(list(texts)), ids)
