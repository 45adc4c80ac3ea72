"""CIReVL answers queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.batching import encode_in_batches
from pipeline.encoders.image_source import ImageSource
from pipeline.query.cirevl import METHODS, NAME
from pipeline.query.clock import Clock
from pipeline.query.interface import NO_CONTROLS, Controls, Descriptions, Family, Method, QueryVectors
from pipeline.query.models import Models
from pipeline.query.spaces import BackboneSpace, ModelSpace
from pipeline.query.turning import beyond, turn_away
from pipeline.retrieval.queries import Query
from pipeline.retrieval.spaces import CLIP


def spaces(models: Models) -> dict[str, ModelSpace]:
    """The backbone's space."""
    return {CLIP: BackboneSpace(models)}


def load(models: Models, only: Collection[str] | None = None) -> Cirevl:
    """The family over the shared f_M and backbone."""
    return Cirevl(models)


class Cirevl(Family):
    """The method `cirevl`."""

    methods: Mapping[str, Method] = {NAME: METHODS[0]}

    def __init__(self, models: Models):
        self._models, self.params = models, models.params
        self.spaces = spaces(models)

    def answer(
        self,
        queries: Sequence[Query],
        images: ImageSource,
        controls: Controls = NO_CONTROLS,
        methods: Collection[str] | None = None,
        descriptions: Descriptions | None = None,
    ) -> dict[str, QueryVectors]:
        """See `Family.answer`. Without `retrieve.edit_prompt` the likeliest description is the text to search for.

        Raises:
            ControlError: There is a region.
        """
        clock = Clock()
        if not self.chosen(methods, controls):
            return {}
        with clock.part("describe"):
            texts = self._target_texts(queries, images, descriptions)
            vectors = encode_in_batches(self._encode, texts, self.params.retrieve.batch_size, NAME)
            if controls.negative:
                vectors = self._turned(vectors, controls)
        return {NAME: QueryVectors(CLIP, vectors, [[text] for text in texts], clock.seconds)}

    def infer_texts(self, queries: Sequence[Query], images: ImageSource) -> None:
        """See `Family.infer_texts`."""
        self._target_texts(queries, images, None)

    def _target_texts(
        self, queries: Sequence[Query], images: ImageSource, descriptions: Descriptions | None
    ) -> list[str]:
        """What the targets show, in words: one text a query."""
        describer, prompt = self._models.describer, self.params.retrieve.edit_prompt
        if prompt:
            return describer.edited_captions(queries, images, prompt)
        return [texts[0] for texts in descriptions or describer.targets(queries, images)]

    def _encode(self, texts: Sequence[str]) -> Tensor:
        """f_T of texts, [B, d]."""
        backbone = self._models.backbone
        return backbone.encode_text(backbone.tokenize(texts).to(backbone.mean.device))

    @torch.inference_mode()
    def _turned(self, vectors: np.ndarray, controls: Controls) -> np.ndarray:
        """Text vectors [Q, d], away from what a negative text says beyond them."""
        negative, wanted = self._encode([controls.negative]).cpu(), torch.from_numpy(vectors)
        return turn_away(vectors, beyond(negative.float(), wanted).numpy(), controls.negative_weight)
