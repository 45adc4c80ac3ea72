"""What f_M writes about the queries: target descriptions, captions of references, captions after an edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.config import Params
from pipeline.encoders.batching import shown_batches
from pipeline.encoders.image_source import ImageSource, ImageTable
from pipeline.encoders.mllm.interface import Generator, MllmInput
from pipeline.encoders.mllm.prompts import caption_input, target_input
from pipeline.retrieval.queries import Query
from pipeline.text.phrases import PhraseParser

Key = tuple[str, ...]
"""Names what a text depends on, its image's table included."""


class Describer:
    """Asks f_M for texts. Captions are kept: one reference belongs to several queries.

    Args:
        params: Prompts, and how many texts of which length.
        open_mllm: Opens f_M; called for the first text.
    """

    def __init__(self, params: Params, open_mllm: Callable[[], Generator]):
        self.params, self._open_mllm = params, open_mllm
        self._captions: dict[Key, list[str]] = {}
        self._texts: dict[Key, list[str]] = {}
        self.keeps_texts = False
        """Whether the other texts are kept, too. They are as many as the queries, so a service keeps none."""

    def targets(self, queries: Sequence[Query], images: ImageSource, count: int = 0) -> list[list[str]]:
        """The descriptions of the targets.

        Args:
            queries: Q queries.
            images: Holds their references.
            count: Texts of a query; 0: `retrieve.descriptions`, for Fusion-Diff.

        Returns:
            For each query so many texts, the likeliest first; the modification where f_M says nothing.
        """
        count = count or self.params.retrieve.descriptions
        section = self.params.describer

        def made(number: int) -> MllmInput:
            query = queries[number]
            image = images.image(query.reference_id, section.max_side)
            return target_input(section, image, query.text, query.shared_concept)

        keys = [
            (f"target {count}", _source(images), query.reference_id, query.text, query.shared_concept or "")
            for query in queries
        ]
        kept = self._texts if self.keeps_texts and isinstance(images, ImageTable) else {}
        texts = self._generate(keys, kept, made, "target descriptions", count)
        return [[text or query.text for text in found] for query, found in zip(queries, texts, strict=True)]

    def reasoned(self, queries: Sequence[Query], images: ImageSource, prompt: str, max_new_tokens: int) -> list[str]:
        """What f_M answers to an instruction about reference and modification at once.

        Args:
            queries: Q queries.
            images: Holds their references.
            prompt: The instruction, with the field {modification}.
            max_new_tokens: Bound on an answer's tokens: reasoning takes more of them than a description.

        Returns:
            One answer a query, with all of its reasoning.
        """
        side = self.params.describer.max_side

        def made(number: int) -> MllmInput:
            query = queries[number]
            return MllmInput(prompt.format(modification=query.text), images.image(query.reference_id, side))

        keys = [("reasoned", _source(images), query.reference_id, query.text) for query in queries]
        kept = self._texts if self.keeps_texts and isinstance(images, ImageTable) else {}
        answers = self._generate(keys, kept, made, "reasoning", 1, max_new_tokens)
        return [texts[0] for texts in answers]

    def captions(self, queries: Sequence[Query], images: ImageSource) -> list[str]:
        """The captions of the references, one a query. A table's image is captioned once."""
        return [texts[0] for texts in self.several_captions(queries, images, 1)]

    def several_captions(self, queries: Sequence[Query], images: ImageSource, count: int) -> list[list[str]]:
        """The `count` likeliest captions of the references for every query. A table's image is captioned once."""
        ids = list(dict.fromkeys(query.reference_id for query in queries))
        side = self.params.describer.max_side

        def made(number: int) -> MllmInput:
            return caption_input(self.params.captioner, images.image(ids[number], side))

        keys = [(str(count), _source(images), image_id) for image_id in ids]
        kept = self._captions if isinstance(images, ImageTable) else {}
        found = dict(zip(ids, self._generate(keys, kept, made, "captions of references", count), strict=True))
        return [[text.strip() for text in found[query.reference_id]] for query in queries]

    def edited_captions(self, queries: Sequence[Query], images: ImageSource, prompt: str) -> list[str]:
        """The captions of the references after the modifications.

        Args:
            queries: Q queries.
            images: Holds their references.
            prompt: A text-only instruction with the fields {caption} and {modification}.

        Returns:
            One text a query; the modification where f_M says nothing.
        """
        captions = [[caption] for caption in self.captions(queries, images)]
        return [texts[0] for texts in self.edits(queries, captions, prompt)]

    def edits(self, queries: Sequence[Query], captions: Sequence[Sequence[str]], prompt: str) -> list[list[str]]:
        """Captions after the modifications.

        Args:
            queries: Q queries.
            captions: Those of their references, equally many for each.
            prompt: See `edited_captions`.

        Returns:
            For each query a text for each caption; the modification where f_M says nothing.
        """
        filled = [
            prompt.format(caption=caption, modification=query.text)
            for query, texts in zip(queries, captions, strict=True)
            for caption in texts
        ]
        keys = [("edit", text) for text in filled]
        kept = self._texts if self.keeps_texts else {}
        edited = self._generate(keys, kept, lambda number: MllmInput(filled[number]), "edited captions", 1)
        count = len(filled) // max(1, len(queries))
        return [
            [texts[0].strip() or query.text for texts in edited[row * count : (row + 1) * count]]
            for row, query in enumerate(queries)
        ]

    def _generate(
        self,
        keys: Sequence[Key],
        kept: dict[Key, list[str]],
        made: Callable[[int], MllmInput],
        title: str,
        count: int,
        max_new_tokens: int = 0,
    ) -> list[list[str]]:
        """The `count` likeliest texts for every key.

        Args:
            keys: What is asked for.
            kept: The texts that are known. Those that are generated are added.
            made: The input of a key, by its number.
            title: Of the progress bar.
            count: How many texts.
            max_new_tokens: Bound on a text's tokens; 0: `describer.max_new_tokens`.
        """
        new = [number for number, key in enumerate(keys) if key not in kept]
        if new:
            section, mllm = self.params.describer, self._open_mllm()
            for numbers in shown_batches(new, section.batch_size, title, "text"):
                asked = [made(number) for number in numbers]
                texts = mllm.generate(asked, max_new_tokens or section.max_new_tokens, count)
                kept |= {keys[number]: found for number, found in zip(numbers, texts, strict=True)}
        return [kept[key] for key in keys]


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
