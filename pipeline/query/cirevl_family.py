"""CIReVL answers queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pipeline.encoders.image_source import ImageSource
from pipeline.query.cirevl import METHODS, NAME
from pipeline.query.clock import Clock
from pipeline.query.interface import NO_CONTROLS, Controls, Descriptions, Family, Method, QueryVectors
from pipeline.query.models import Models
from pipeline.query.spaces import BackboneSpace, ModelSpace
from pipeline.query.text_search import text_vectors, turned_from_text
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
            vectors = text_vectors(self._models, texts, NAME)
            if controls.negative:
                vectors = turned_from_text(self._models, vectors, controls)
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
