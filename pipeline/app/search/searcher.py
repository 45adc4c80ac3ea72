"""A gallery, the models over it, and one request at a time: behind the command and the page alike."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipeline.app.search.answers import Answer, Hit
from pipeline.app.search.galleries import Gallery
from pipeline.app.search.nearest_captions import Caption, TrainingCaptions
from pipeline.app.search.own_describer import check_described, with_describer
from pipeline.app.search.reference import RequestError
from pipeline.app.search.remedies import check_trained
from pipeline.app.search.requests import REFERENCE, Request
from pipeline.app.search.steering import NO_STEERING, weighted_sum
from pipeline.app.search.verifying import check_reranked, verified
from pipeline.artifacts import ArtifactError
from pipeline.config import ParameterError, Params
from pipeline.encoders.image_source import InMemoryImages
from pipeline.query.interface import Controls, Family, Method
from pipeline.query.models import Models
from pipeline.query.registry import by_interest, find_method, is_trained, load_family, methods
from pipeline.retrieval import Index, Query
from pipeline.retrieval.spaces import FUSED, Space

if TYPE_CHECKING:  # a method that samples nothing needs neither
    from pipeline.decoder.imagine import Imagination
    from pipeline.fusion_diff import TargetSampler


class Searcher:
    """Answers requests over one gallery. Models and indexes are loaded when first needed, and stay.

    Several threads may ask. One lock serves them one after the other, since each search uses all cores. It is free
    only while a thread waits for a batch that a GPU samples for several of them.

    Args:
        params: Sizes, models and defaults.
        gallery: What is searched.
        models: Models to share; None: new ones.
        describer: A multimodal LLM that describes targets in the place of the parameters'; "": theirs.
    """

    def __init__(self, params: Params, gallery: Gallery, models: Models | None = None, describer: str = ""):
        params = gallery.encoder.into(params) if gallery.encoder else params
        self.params = with_describer(params, describer) if describer else params
        self.gallery, self.models = gallery, models or Models(self.params)
        self._families: list[Family] = []
        self._captions: TrainingCaptions | None = None
        self._lock = threading.Lock()

    @property
    def methods(self) -> list[str]:
        """Methods whose models are trained and whose space the gallery has, the featured ones first."""
        there = set(self.gallery.spaces)
        found = [
            method
            for method in methods(self.params).values()
            if method.space in there and (self._loaded(method.name) or is_trained(method))
        ]
        return [method.name for method in by_interest(found)]

    def search(self, request: Request) -> Answer:
        """Search the gallery.

        Args:
            request: The reference, the modification and the method.

        Returns:
            The best images, with what led to them.

        Raises:
            ArtifactError: An index or a model is missing, or they do not belong together.
            ControlError: The method cannot use a control.
            ParameterError: There is no such method.
        """
        return self.search_together([request])[0]

    def search_together(self, requests: Sequence[Request]) -> list[Answer]:
        """Search the gallery for several requests at once, which is quicker than one after the other.

        Args:
            requests: One or more, with one method and the same controls.

        Returns:
            Their answers. `seconds` are those of all requests together.

        Raises:
            ArtifactError, ControlError, ParameterError: As `search`.
            RequestError: A judged answer is not in the gallery.
            FilterError: A filter cannot be read, or names a field that the gallery does not have.
        """
        method, controls = requests[0].method, requests[0].controls
        for where in {request.where for request in requests}:
            self.gallery.check_filter(where)
        if any((request.method, request.controls) != (method, controls) for request in requests):
            raise ValueError("requests that are answered together need the same method and controls")
        questions = _Questions(requests)
        with self._lock:
            check_described(method, self.params)
            for request in requests:
                check_reranked(request, self.gallery, self.params)
            self._check_indexed(find_method(method, self.params))
            family = self._family(method)
            family.methods[method].check(controls)
            space = family.spaces[family.methods[method].space]
            index = self._index(space, method)
            images = InMemoryImages(questions.images, {space.name: self._stored(questions, index)})
            answer = family.answer(questions.queries, images, controls, methods=[method])[method]
            start = time.perf_counter()
            vectors = [
                steered(request, answer.vectors[rows], space, index)
                for request, rows in zip(requests, questions.rows, strict=True)
            ]
            found = self._found(requests, vectors, index)
            seconds = {**answer.seconds, "search": time.perf_counter() - start}
        answers, name_of = [], self.gallery.name_of
        for request, rows, vector, (ids, scores) in zip(requests, questions.rows, vectors, found, strict=True):
            hits = [
                Hit(image_id, score, name_of(image_id))
                for image_id, score in zip(ids, scores, strict=True)
                if image_id not in request.left_out
            ]
            descriptions = list(answer.descriptions[rows.start]) if answer.descriptions else []
            answers.append(Answer(method, answer.space, hits, seconds, descriptions, vector))
        return [self._finished(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def _finished(self, request: Request, answer: Answer) -> Answer:
        """The answer with no more hits than were asked for, verified where that was asked."""
        if request.rerank:
            with self._lock:
                answer = verified(request, answer, self.gallery, self.models)
        return dataclasses.replace(answer, hits=answer.hits[: request.top])

    def _found(
        self, requests: Sequence[Request], vectors: Sequence[np.ndarray], index: Index
    ) -> list[tuple[list[str], list[float]]]:
        """Ids and scores for each request; those with one filter are searched for together."""
        found: list[tuple[list[str], list[float]]] = [([], [])] * len(requests)
        for where in dict.fromkeys(request.where for request in requests):
            rows = [row for row, request in enumerate(requests) if request.where == where]
            asked = max(requests[row].depth + len(requests[row].left_out) for row in rows)
            stacked, fuse = np.stack([vectors[row] for row in rows]), self.params.retrieve.fuse
            ids, scores = index.search(stacked, asked, fuse=fuse, among=where or None)
            for place, row in enumerate(rows):
                found[row] = ids[place], scores[place]
        return found

    def _stored(self, questions: _Questions, index: Index) -> dict[str, np.ndarray]:
        """Name in the queries -> vector, of the references that are images of the gallery."""
        if not index.keeps_vectors:
            return {}
        ids = {name: one for name, one in questions.ids.items() if one in index and self.gallery.is_as_indexed(one)}
        return dict(zip(ids, index.vectors(list(ids.values())), strict=True)) if ids else {}

    @property
    def guard(self) -> AbstractContextManager[Any]:
        """Held while the models compute. Whoever uses them beside this searcher takes it, too."""
        return self._lock

    def explain(self, request: Request) -> np.ndarray | None:
        """How much of the reference a method keeps, and where; see `Family.explain`."""
        images = InMemoryImages({REFERENCE: request.image})
        with self._lock:
            family = self._family(request.method)
            return family.explain(request.method, request.query(), images, request.controls)

    def describe(self, request: Request) -> list[str]:
        """The target as f_M describes it from the reference and the modification, the likeliest first.

        Raises:
            ParameterError: There is no f_M.
        """
        if not self.params.describer.path:
            raise ParameterError("describe: no multimodal LLM describes targets here; --describer names one")
        images = InMemoryImages({REFERENCE: request.image})
        with self._lock:
            return self.models.describer.targets([request.query()], images)[0]

    def nearest_captions(self, answer: Answer, count: int = 5) -> list[Caption]:
        """The training captions whose images lie nearest to what was searched in f_M's space."""
        with self._lock:
            self._captions = self._captions or TrainingCaptions.load()
        return self._captions.nearest(answer.vector, count)

    def decoded(self, answer: Answer, most: int = 4) -> list[Image.Image]:
        """What was searched, as images: the first hypotheses. Nothing without a decoder, or outside f_M's space.

        Raises:
            ArtifactError: The decoder is damaged.
        """
        if answer.space != FUSED:
            return []
        with self._lock:
            imagination = self._imagination
            return imagination.images(np.atleast_2d(answer.vector)[:most]) if imagination else []

    @cached_property
    def _imagination(self) -> Imagination | None:
        from pipeline.decoder.imagine import Imagination  # which most searches do not need

        return Imagination.open_fitting(self.params)

    def warm(self, methods: Sequence[str]) -> None:
        """Load what the methods need, and run everything once."""
        white = Image.new("RGB", (64, 64), "white")
        controls = Controls(hypotheses=self.params.retrieve.hypotheses)
        for method in methods:
            self.search(Request(white, "warm up", method, controls=controls))

    def _loaded(self, method: str) -> Family | None:
        return next((family for family in self._families if method in family.methods), None)

    def _family(self, name: str) -> Family:
        """The family of a method, loaded now where it was not yet. Raises ParameterError for an unknown method."""
        method, family = find_method(name, self.params), self._loaded(name)
        if family is None:
            check_trained(method)
            family = load_family(method, self.models)
            family.samplers = {sampled: self._shared(sampler) for sampled, sampler in family.samplers.items()}
            self._families.append(family)
        return family

    def _shared(self, sampler: TargetSampler) -> TargetSampler:
        """A sampler that several visitors use at once, where that is quicker.

        Nobody waits for company: whoever comes while a batch is sampled makes up the next one.
        """
        if not sampler.gains_from_batches:
            return sampler
        from pipeline.gpu.batcher import SamplingBatcher

        return SamplingBatcher(sampler, wait_ms=0.0, waiting=self._released)

    @contextmanager
    def _released(self) -> Iterator[None]:
        """Let go of the lock, which this thread holds, and take it again after the block."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def _check_indexed(self, method: Method) -> None:
        """Raise ArtifactError, before any model is loaded, for a gallery that is indexed for other methods."""
        if method.space not in self.gallery.spaces:
            there = ", ".join(self.gallery.spaces) or "nothing"
            command = self.gallery.index_command(method.name)
            wanted = f"{method.space}, which {method.name} searches; `{command}` adds it"
            raise ArtifactError(f"{self.gallery.name}: indexed for {there}, not for {wanted}")

    def _index(self, space: Space, method: str) -> Index:
        try:
            return self.gallery.index(space, self.params)
        except ArtifactError as error:
            raise ArtifactError(f"{error}; `{self.gallery.index_command(method)}` makes it anew") from None


class _Questions:
    """The queries of several requests in a row: each request's references that are composed with its text.

    Args:
        requests: What is asked.
    """

    def __init__(self, requests: Sequence[Request]):
        self.queries: list[Query] = []
        self.rows: list[slice] = []
        """Where the queries of each request are; the first is that of its first reference."""
        self.images: dict[str, Image.Image] = {}
        """Name in the queries -> reference."""
        self.ids: dict[str, str] = {}
        """Name in the queries -> id in the gallery, of the references that are images of the gallery."""
        for request in requests:
            start = len(self.queries)
            added = [(reference.image, reference.image_id) for reference in request.steering.added]
            for image, image_id in ((request.image, request.exclude), *added):
                name = f"{REFERENCE} {len(self.images)}"
                self.images[name] = image
                if image_id is not None:
                    self.ids[name] = image_id
                self.queries.append(request.query(image, name))
            self.rows.append(slice(start, len(self.queries)))


def steered(request: Request, composed: np.ndarray, space: Space, index: Index) -> np.ndarray:
    """What is searched for a request.

    Args:
        request: Holds further references and judged answers.
        composed: [R, d] or [R, K, d]: its R references that count for it, composed with its text.
        space: Where they lie.
        index: Holds the vectors of judged answers.

    Returns:
        [d] or [K, d]. The only composed vector itself, where nothing moves it.

    Raises:
        RequestError: A judged answer is not in the gallery, or the weights cancel each other out.
    """
    steering = request.steering
    if steering == NO_STEERING:
        return composed[0]
    parts, weights = list(composed), [1.0, *(reference.weight for reference in steering.added)]
    if steering.subtracted:
        parts += list(space.embed_images([reference.image for reference in steering.subtracted]))
        weights += [reference.weight for reference in steering.subtracted]
    judged = {"liked": steering.liked_weight, "disliked": -steering.disliked_weight}
    for name, weight in judged.items():
        ids = getattr(steering, name)
        if unknown := [image_id for image_id in ids if image_id not in index]:
            raise RequestError(f"{name}: {unknown[0]!r} is no image of this gallery")
        if ids:
            parts.append(index.vectors(ids).mean(axis=0))
            weights.append(weight)
    return weighted_sum(parts, weights)


def for_method(request: Request, method: Method) -> Request:
    """The same request for another method, without its region where that method takes none."""
    controls = request.controls
    if "region" not in method.controls:
        controls = dataclasses.replace(controls, region=None)
    return dataclasses.replace(request, method=method.name, controls=controls)
