"""What f_M writes about the queries: target descriptions, captions of references, captions after an edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tqdm import tqdm

from pipeline.config import Params
from pipeline.encoders.batching import batches
from pipeline.encoders.image_source import ImageSource, ImageTable
from pipeline.encoders.mllm.interface import Generator, MllmInput
from pipeline.encoders.mllm.prompts import caption_input, target_input
from pipeline.retrieval.queries import Query
from pipeline.text.phrases import PhraseParser


class Describer:
    """Asks f_M for texts. Captions are kept: one reference belongs to several queries.

    Args:
        params: Prompts, and how many texts of which length.
        open_mllm: Opens f_M; called for the first text.
    """

    def __init__(self, params: Params, open_mllm: Callable[[], Generator]):
        self.params, self._open_mllm = params, open_mllm
        self._captions: dict[tuple[str, str], str] = {}

    def targets(self, queries: Sequence[Query], images: ImageSource) -> list[list[str]]:
        """The descriptions of the targets, for Fusion-Diff.

        Args:
            queries: Q queries.
            images: Holds their references.

        Returns:
            For each query `retrieve.descriptions` texts, the likeliest first; the modification where f_M says nothing.
        """
        section = self.params.describer
        inputs = [
            target_input(section, images.image(query.reference_id, section.max_side), query.text, query.shared_concept)
            for query in queries
        ]
        texts = self._generate(inputs, "target descriptions", self.params.retrieve.descriptions)
        return [[text or query.text for text in found] for query, found in zip(queries, texts, strict=True)]

    def captions(self, queries: Sequence[Query], images: ImageSource) -> list[str]:
        """The captions of the references, one a query. A table's image is captioned once."""
        keys = [(_source(images), query.reference_id) for query in queries]
        new = [key for key in dict.fromkeys(keys) if key not in self._captions]
        side = self.params.describer.max_side
        inputs = [caption_input(self.params.captioner, images.image(image_id, side)) for _, image_id in new]
        captions = dict(zip(new, self._first(inputs, "captions of references"), strict=True))
        if isinstance(images, ImageTable):
            self._captions |= captions
        return [captions[key] if key in captions else self._captions[key] for key in keys]

    def edited_captions(self, queries: Sequence[Query], images: ImageSource, prompt: str) -> list[str]:
        """The captions of the references after the modifications.

        Args:
            queries: Q queries.
            images: Holds their references.
            prompt: A text-only instruction with the fields {caption} and {modification}.

        Returns:
            One text a query; the modification where f_M says nothing.
        """
        captions = self.captions(queries, images)
        inputs = [
            MllmInput(prompt.format(caption=caption, modification=query.text))
            for query, caption in zip(queries, captions, strict=True)
        ]
        edited = self._first(inputs, "edited captions")
        return [text or query.text for text, query in zip(edited, queries, strict=True)]

    def _first(self, inputs: Sequence[MllmInput], title: str) -> list[str]:
        """The likeliest text for every input."""
        return [texts[0].strip() for texts in self._generate(inputs, title, 1)]

    def _generate(self, inputs: Sequence[MllmInput], title: str, count: int) -> list[list[str]]:
        """The `count` likeliest texts for every input."""
        if not inputs:
            return []
        section, mllm = self.params.describer, self._open_mllm()
        progress = tqdm(list(batches(inputs, section.batch_size)), desc=title, mininterval=5.0, delay=1.0)
        return [texts for batch in progress for texts in mllm.generate(batch, section.max_new_tokens, count)]


def _source(images: ImageSource) -> str:
    """Tells apart images of the same id in different tables."""
    return str(images.folder) if isinstance(images, ImageTable) else ""


def with_shared_concepts(queries: list[Query], images: ImageSource, describer: Describer) -> list[Query]:
    """Give every query a shared concept: what reference and target have in common.

    Args:
        queries: Q queries. Those that have a concept keep it.
        images: Holds the references.
        describer: Captions the references of the others.

    Returns:
        The queries. A new concept is the first noun phrase of the reference's caption, or the caption if it has none.
    """
    without = [query for query in queries if not query.shared_concept]
    if not without:
        return queries
    captions = describer.captions(without, images)
    phrases = PhraseParser(describer.params.captions.spacy_model).noun_phrases(captions)
    concepts = {
        query.query_id: (found or [caption])[0]
        for query, caption, found in zip(without, captions, phrases, strict=True)
    }
    return [replace(query, shared_concept=concepts.get(query.query_id, query.shared_concept)) for query in queries]
