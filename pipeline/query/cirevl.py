"""CIReVL, and what f_M says of the references alone.

The baseline in three steps: caption the reference, let a language model apply the modification to
the caption, and search for the resulting text in the space of an image-text backbone (here the one
that DiffComp starts from). The second step needs a model that follows text-only instructions
(`retrieve.edit_prompt`). The small f_M of the embedded default knows none: it was taught to describe
the image after the edit from reference and modification at once, so there its target description
(the one that conditions Fusion-Diff) stands for the first two steps, and the row says how far text
alone carries that description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.config import Params
from pipeline.encoders.batching import batches, encode_in_batches
from pipeline.encoders.dual.interface import DualEncoder
from pipeline.encoders.image_source import ImageTable
from pipeline.encoders.mllm.interface import Mllm, MllmInput
from pipeline.encoders.mllm.prompts import caption_input
from pipeline.query.methods import CLIP, Family, QueryVectors
from pipeline.retrieval import Query
from pipeline.text.phrases import PhraseParser


class ReferenceCaptions:
    """f_M's captions of reference images, one an image, generated when first asked for."""

    def __init__(self, params: Params, mllm: Mllm):
        self.params, self.mllm = params, mllm
        self._known: dict[tuple[str, str], str] = {}

    def of(self, queries: Sequence[Query], pictures: ImageTable) -> list[str]:
        """The caption of every query's reference."""
        keys = [(str(pictures.folder), query.reference_id) for query in queries]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        inputs = [caption_input(self.params.encoder, pictures.image(image_id)) for _, image_id in new]
        self._known |= zip(new, generated(self.params, self.mllm, inputs, "captions of references"), strict=True)
        return [self._known[key] for key in keys]

    def with_concepts(self, queries: list[Query], pictures: ImageTable) -> list[Query]:
        """The queries with a shared concept each: their own, else what the reference's caption is about first (its first noun phrase)."""
        without = [query for query in queries if not query.shared_concept]
        if not without:
            return queries
        captions = self.of(without, pictures)
        phrases = PhraseParser(self.params.captions.spacy_model).phrases(captions)
        found = {
            query.query_id: (named or [caption])[0]
            for query, caption, named in zip(without, captions, phrases, strict=True)
        }
        return [replace(query, shared_concept=found.get(query.query_id, query.shared_concept)) for query in queries]


class CirevlQueries:
    """The method `cirevl`. `descriptions` are Fusion-Diff's: query id -> target descriptions, there before this family is asked."""

    def __init__(
        self,
        params: Params,
        captions: ReferenceCaptions,
        descriptions: Mapping[str, list[str]],
        backbone: DualEncoder,
        identity: dict[str, Any],
    ):
        self.params, self.captions, self.descriptions, self.backbone = params, captions, descriptions, backbone
        self.spaces = {CLIP: identity}

    def vectors(self, queries: Sequence[Query], pictures: ImageTable) -> dict[str, QueryVectors]:
        def encode(texts: Sequence[str]) -> Any:
            return self.backbone.encode_text(self.backbone.tokenize(texts).to(self.backbone.mean.device))

        texts = self.target_texts(queries, pictures)
        return {
            "cirevl": QueryVectors(CLIP, encode_in_batches(encode, texts, self.params.retrieve.batch_size, "cirevl"))
        }

    def target_texts(self, queries: Sequence[Query], pictures: ImageTable) -> list[str]:
        """What the target should show, in words; the modification where nothing is said."""
        prompt = self.params.retrieve.edit_prompt
        if not prompt:
            return [self.descriptions[query.query_id][0] for query in queries]
        asked = zip(queries, self.captions.of(queries, pictures), strict=True)
        inputs = [MllmInput(prompt.format(caption=caption, modification=query.text)) for query, caption in asked]
        edited = generated(self.params, self.captions.mllm, inputs, "edited captions")
        return [text or query.text for text, query in zip(edited, queries, strict=True)]


def generated(params: Params, mllm: Mllm, inputs: Sequence[MllmInput], title: str) -> list[str]:
    """f_M's likeliest continuation of every input."""
    encoder = params.encoder
    parts = tqdm(list(batches(inputs, encoder.batch_size)), desc=title, mininterval=5.0, disable=not inputs)
    return [answers[0].strip() for batch in parts for answers in mllm.generate(batch, encoder.max_new_tokens)]


def answers_of(
    families: Sequence[Family], queries: Sequence[Query], pictures: ImageTable
) -> Iterator[tuple[Family, str, QueryVectors]]:
    """Every family's methods over all wordings of the queries, which count as further hypotheses of a query.

    Wordings are asked in reverse, so what a family keeps of a query is of its first one.
    """
    count = 1 + max(len(query.alternatives) for query in queries)
    found: dict[str, tuple[Family, list[QueryVectors]]] = {}
    for number in reversed(range(count)):
        worded = [query.worded(number) for query in queries]
        for family in families:
            for method, one in family.vectors(worded, pictures).items():
                found.setdefault(method, (family, []))[1].append(one)
    for method, (family, several) in found.items():
        yield family, method, several[0] if count == 1 else _joined(several)


def _joined(several: Sequence[QueryVectors]) -> QueryVectors:
    """The hypotheses of all: [Q, H, d] each, H being 1 where there is one vector a query."""
    vectors = [one.vectors if one.vectors.ndim == 3 else one.vectors[:, None] for one in several]
    return QueryVectors(several[0].space, np.concatenate(vectors, axis=1))
