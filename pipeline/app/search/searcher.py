"""A gallery, the models over it, and one question at a time: behind the command and the page alike."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.app.search.galleries import Gallery
from pipeline.app.search.nearest_captions import Caption, TrainingCaptions
from pipeline.app.search.requests import REFERENCE, Request
from pipeline.artifacts.weights import WEIGHTS
from pipeline.config import ParameterError, Params
from pipeline.encoders.image_source import InMemoryImages
from pipeline.query.methods import (
    CLIP,
    CONTROL,
    DIFFCOMP,
    FUSED,
    FUSION_DIFF_METHODS,
    PRIOR,
    Controls,
    DualEncoderQueries,
    Family,
    FusionDiffQueries,
    open_space,
)
from pipeline.retrieval import BASELINES, Index


@dataclass(frozen=True)
class Hit:
    """One answer."""

    image_id: str
    score: float


@dataclass(frozen=True)
class Answer:
    """What one method answers, and what it went through."""

    method: str
    hits: list[Hit]
    seconds: dict[str, float]
    """Part (describe, sample, search) -> time."""
    descriptions: list[str]
    """The target as Fusion-Diff described it before sampling."""
    vector: np.ndarray
    """What was searched, [d] or [K, d]."""


class Searcher:
    """Answers requests over one gallery. Models and indexes are loaded when first needed, and stay.

    Several threads may ask; they are served one after the other, since each search uses all the
    cores, but for what a GPU samples, which is done together. Raises ArtifactError and ParameterError
    where the gallery or a model is not there.
    """

    def __init__(self, params: Params, gallery: Gallery, families: Sequence[Family] = ()):
        self.params, self.gallery = params, gallery
        self._families = list(families)
        self._indexes: dict[str, Index] = {}
        self._captions: TrainingCaptions | None = None
        self._lock = threading.RLock()

    @property
    def methods(self) -> list[str]:
        """Methods whose model is trained and whose space the gallery has, the trained ones first."""
        there, variants = set(self.gallery.spaces), reversed(list(self.params.diffcomp_variants))
        fusion_diff = [
            name for name in reversed(FUSION_DIFF_METHODS) if FUSED in there and self._has(name, PRIOR, CONTROL)
        ]
        diffcomp = [name for name in variants if name in there and self._has(name, DIFFCOMP / name)]
        return (
            fusion_diff[:1] + diffcomp + fusion_diff[1:] + [name for name in reversed(list(BASELINES)) if CLIP in there]
        )

    def _has(self, method: str, *folders: Path) -> bool:
        return self._loaded(method) is not None or all((folder / WEIGHTS).is_file() for folder in folders)

    def search(self, request: Request) -> Answer:
        """The best images of the gallery for one request."""
        with self._lock:
            family = self._family(request.method)
        asked = family.ask(
            request.method, request.query(), InMemoryImages({REFERENCE: request.image}), request.controls, self._lock
        )
        with self._lock:
            index = self._index(family, asked.query.space)
            start = time.perf_counter()
            ids, scores = index.search(asked.query.vectors, request.top, [request.exclude], self.params.retrieve.fuse)
            seconds = asked.seconds | {"search": time.perf_counter() - start}
        hits = [Hit(image_id, score) for image_id, score in zip(ids[0], scores[0], strict=True)]
        return Answer(request.method, hits, seconds, asked.descriptions, asked.query.vectors[0])

    def takes_region(self, method: str) -> bool:
        """Whether a region on the reference means anything to the method."""
        return method in self.params.diffcomp_variants

    def kept(self, request: Request) -> np.ndarray:
        """1 - alpha_j over the square that a DiffComp sees of the reference, [h, w]: how much of it stays where."""
        with self._lock:
            family = self._family(request.method)
            return family.kept(
                request.method, request.query(), InMemoryImages({REFERENCE: request.image}), request.controls.region
            )

    def nearest_captions(self, answer: Answer, count: int = 5) -> list[Caption]:
        """The training captions whose images lie nearest to what Fusion-Diff sampled."""
        with self._lock:
            self._captions = self._captions or TrainingCaptions.load()
        return self._captions.nearest(answer.vector, count)

    def warm(self, methods: Sequence[str]) -> None:
        """Load what the methods need, and let everything run once."""
        for method in methods:
            white = Image.new("RGB", (64, 64), "white")
            self.search(
                Request(white, "warm up", method, controls=Controls(hypotheses=self.params.retrieve.hypotheses))
            )

    def _loaded(self, method: str) -> Family | None:
        for family in self._families:
            if method in (
                FUSION_DIFF_METHODS if isinstance(family, FusionDiffQueries) else (*BASELINES, *family.variants)
            ):
                return family
        return None

    def _family(self, method: str) -> Family:
        known = (*FUSION_DIFF_METHODS, *BASELINES, *self.params.diffcomp_variants)
        if method not in known:
            raise ParameterError(f"method: {method!r} is not one of {', '.join(known)}")
        family = self._loaded(method)
        if family is None:
            fused = method in FUSION_DIFF_METHODS
            family = (
                FusionDiffQueries.load(self.params) if fused else DualEncoderQueries.load(self.params, only=[method])
            )
            if fused and family.full.gains_from_batches:
                family.share_batches()
            self._families.append(family)
        return family

    def _index(self, family: Family, space: str) -> Index:
        if space not in self._indexes:
            self._indexes[space] = open_space(self.gallery.indexes, family, space, self.params.runtime.threads)
        return self._indexes[space]


def both(request: Request, method: str, takes_region: bool) -> Request:
    """The same request for another method, without a region where that method has none."""
    controls = request.controls if takes_region else dataclasses.replace(request.controls, region=None)
    return dataclasses.replace(request, method=method, controls=controls)
