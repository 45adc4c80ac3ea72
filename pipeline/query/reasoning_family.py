"""LDRE and OSrCIR answer queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from pipeline.encoders.batching import encode_in_batches
from pipeline.encoders.image_source import ImageSource
from pipeline.query.clock import Clock
from pipeline.query.interface import NO_CONTROLS, Controls, Descriptions, Family, Method, QueryVectors
from pipeline.query.models import Models
from pipeline.query.reasoning import LDRE, methods
from pipeline.query.spaces import BackboneSpace, ModelSpace
from pipeline.query.text_search import text_vectors, turned_from_text
from pipeline.retrieval.queries import Query
from pipeline.retrieval.spaces import CLIP


def spaces(models: Models) -> dict[str, ModelSpace]:
    """The backbone's space, where a method is configured."""
    return {CLIP: BackboneSpace(models)} if methods(models.params) else {}


def load(models: Models, only: Collection[str] | None = None) -> Reasoning:
    """The family over the shared f_M and backbone."""
    return Reasoning(models, [method for method in methods(models.params) if only is None or method.name in only])


class Reasoning(Family):
    """The methods in `peers.described`."""

    def __init__(self, models: Models, chosen: Sequence[Method]):
        self._models, self.params = models, models.params
        self.methods: Mapping[str, Method] = {method.name: method for method in chosen}
        self.spaces = spaces(models)

    def answer(
        self,
        queries: Sequence[Query],
        images: ImageSource,
        controls: Controls = NO_CONTROLS,
        methods: Collection[str] | None = None,
        descriptions: Descriptions | None = None,
    ) -> dict[str, QueryVectors]:
        """See `Family.answer`. LDRE needs other descriptions than those of earlier families, and asks for its own.

        Raises:
            ControlError: There is a region.
        """
        found = {}
        for name in self.chosen(methods, controls):
            clock = Clock()
            with clock.part("describe"):
                if name == LDRE:
                    captions, texts = self._divergent(queries, images)
                    vectors = self._ensemble(queries, images, captions, texts)
                else:
                    texts = [[text] for text in self._reasoned(queries, images, descriptions)]
                    vectors = text_vectors(self._models, [text for (text,) in texts], name)
                if controls.negative:
                    vectors = turned_from_text(self._models, vectors, controls)
            found[name] = QueryVectors(CLIP, vectors, texts, clock.seconds)
        return found

    def infer_texts(self, queries: Sequence[Query], images: ImageSource) -> None:
        """See `Family.infer_texts`."""
        for name in self.methods:
            if name == LDRE:
                self._divergent(queries, images)
            else:
                self._reasoned(queries, images, None)

    def _divergent(
        self, queries: Sequence[Query], images: ImageSource
    ) -> tuple[list[list[str]] | None, list[list[str]]]:
        """K captions of every reference, and each after the modification. Without an edit prompt K descriptions of
        the target take the place of both, and there are no captions."""
        describer, prompt = self._models.describer, self.params.retrieve.edit_prompt
        count = self.params.peers.ldre.captions
        if not prompt:
            return None, describer.targets(queries, images, count)
        captions = describer.several_captions(queries, images, count)
        return captions, describer.edits(queries, captions, prompt)

    def _ensemble(
        self,
        queries: Sequence[Query],
        images: ImageSource,
        captions: list[list[str]] | None,
        texts: list[list[str]],
    ) -> np.ndarray:
        """The weighted sums of the texts' vectors, of unit length: float32 [Q, d]."""
        edited = self._vectors(texts)
        similarity = np.zeros(edited.shape[:2], np.float32)
        if captions is not None:
            similarity = np.einsum("qkd,qd->qk", self._vectors(captions), self._references(queries, images))
        weights = ensemble_weights(edited, similarity, self.params.peers.ldre.temperature)
        mixed = np.einsum("qk,qkd->qd", weights, edited)
        return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)

    def _vectors(self, texts: list[list[str]]) -> np.ndarray:
        """f_T of K texts for each query: [Q, K, d]."""
        flat = text_vectors(self._models, [text for found in texts for text in found], LDRE)
        return flat.reshape(len(texts), -1, flat.shape[1])

    def _references(self, queries: Sequence[Query], images: ImageSource) -> np.ndarray:
        """f_I of the references, [Q, d]."""
        encoder = self._models.backbone
        ids = [query.reference_id for query in queries]
        return encode_in_batches(
            lambda batch: encoder.encode_image(
                encoder.normalise(images.pixels(batch, encoder.image_size, encoder.fit))
            ),
            ids,
            self.params.retrieve.batch_size,
            LDRE,
        )

    def _reasoned(self, queries: Sequence[Query], images: ImageSource, descriptions: Descriptions | None) -> list[str]:
        """The target descriptions that end f_M's reasoning. Without a prompt its plain descriptions: an f_M that was
        taught to describe the target from image and modification at once takes that one step unasked."""
        section, describer = self.params.peers.osrcir, self._models.describer
        if not section.prompt:
            return [texts[0] for texts in descriptions or describer.targets(queries, images)]
        answers = describer.reasoned(queries, images, section.prompt, section.max_new_tokens)
        return [
            final_answer(answer, section.answer) or query.text for answer, query in zip(answers, queries, strict=True)
        ]


def ensemble_weights(edited: np.ndarray, similarity: np.ndarray, temperature: float) -> np.ndarray:
    """How much each of a query's K edited captions counts in LDRE's ensemble.

        w_k ~ exp(s_k / tau) / sum_l max(0, cos(e_k, e_l)),   sum_k w_k = 1

    The numerator prefers captions that fit the reference. The denominator counts what says the same: repetitions
    share one voice, so that a caption that tells something else is heard.

    Args:
        edited: e, f_T of the edited captions, [Q, K, d], L2-normalised.
        similarity: s, f_I(reference) . f_T(caption), [Q, K]; equal numbers where nothing is known.
        temperature: tau.

    Returns:
        [Q, K].
    """
    fitting = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
    voices = np.maximum(0.0, np.einsum("qkd,qld->qkl", edited, edited)).sum(axis=2)  # [Q, K], at least 1
    weights = fitting / voices
    return weights / weights.sum(axis=1, keepdims=True)


def final_answer(answer: str, mark: str) -> str:
    """The first line after the last `mark` of an answer; without the mark its last line; "" for an empty answer.

    Args:
        answer: What f_M wrote: reasoning, then the mark and a description.
        mark: As `peers.osrcir.answer`.
    """
    before, found, after = answer.rpartition(mark)
    lines = [line.strip() for line in (after if found else answer).splitlines() if line.strip()]
    return (lines[0] if found else lines[-1]) if lines else ""
