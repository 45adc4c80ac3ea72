"""Searching from Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.app.search import searcher
from pipeline.app.search.galleries import Gallery, open_gallery
from pipeline.app.search.reference import as_reference
from pipeline.app.search.requests import Request
from pipeline.config import load_params
from pipeline.query.interface import NO_CONTROLS, Controls

Reference = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class Found:
    """One image that answers a search."""

    id: str
    """Its id in the gallery; of a folder's image the path below the folder."""
    name: str
    """What it is called, where the gallery knows more than the id; else empty."""
    score: float
    """Cosine similarity to what was searched for, the best first; verified answers have that of `rerank`."""
    path: Path | None
    """Its file. None in a benchmark, whose images lie in tables."""
    gallery: Gallery

    @property
    def image(self) -> Image.Image:
        """The image, RGB. Raises ArtifactError where it is gone."""
        return self.gallery.image(self.id)


class Searcher:
    """Searches one gallery by a reference image and a modification. `open` makes one.

    Models are loaded by the first search, and stay. Several threads may search.
    """

    def __init__(self, inner: searcher.Searcher, where: str = ""):
        self._inner, self._where = inner, where

    @classmethod
    def open(
        cls, gallery: str | Path | None = None, params: str | Path = "params.yaml", threads: int | None = None
    ) -> Searcher:
        """Open a gallery.

        Args:
            gallery: A folder that `cir index` has indexed, its library's folder or name, or the name of a benchmark.
                None: the benchmark that `dvc repro` has indexed.
            params: Names models and sizes. Its paths are relative to the working folder.
            threads: CPU threads of a search. None: those of the parameters.

        Returns:
            The searcher. No model is loaded yet.

        Raises:
            ArtifactError: There is no such gallery, or it has no index.
            ParameterError: A parameter is wrong.
        """
        opened, loaded = open_gallery(gallery), load_params(params)
        loaded.runtime.threads = threads or loaded.runtime.threads
        from pipeline.runtime import set_up  # which loads torch

        set_up(loaded.runtime, loaded.seed)
        return cls(searcher.Searcher(loaded, opened))

    @property
    def methods(self) -> list[str]:
        """The methods that can search this gallery, the best known first."""
        return self._inner.methods

    def among(self, where: str) -> Searcher:
        """The same models over a part of the gallery.

        Args:
            where: A filter on metadata, such as `year >= 2020`; see `pipeline.retrieval.filters`.

        Returns:
            A searcher whose answers pass this filter, and no other one.

        Raises:
            FilterError: It cannot be read, or names a field that the gallery does not have.
        """
        self._inner.gallery.check_filter(where)
        return Searcher(self._inner, where)

    def search(
        self,
        image: Reference,
        text: str,
        method: str = "",
        top: int = 10,
        controls: Controls = NO_CONTROLS,
        rerank: int = 0,
    ) -> list[Found]:
        """Find the images that show the reference after the modification.

        Args:
            image: The reference: a file, an id of the gallery, a PIL image, or an array of uint8, [H, W], [H, W, 3] or
                [H, W, 4]. All go through the one decoder, so transparency lies on white.
            text: The modification.
            method: One of `methods`. Empty: fusion_diff, or slerp over an encoder of one's own.
            top: The number of images.
            controls: A negative text, a region, scales.
            rerank: How many of the first answers the parameters' `reranker` verifies and orders anew; 0: none.

        Returns:
            The best images, without the reference.

        Raises:
            ArtifactError: An index or a model is missing, or they do not belong together.
            ControlError: The method cannot use a control.
            ParameterError: There is no such method.
            RequestError: The image cannot be read, the text is empty, or a number is out of range.
        """
        gallery = self._inner.gallery
        request = self._request(image, text, method, top, controls)
        answer = self._inner.search(replace(request, rerank=rerank))
        return [Found(hit.image_id, hit.name, hit.score, gallery.path(hit.image_id), gallery) for hit in answer.hits]

    def imagine(
        self, image: Reference, text: str, method: str = "", most: int = 4, controls: Controls = NO_CONTROLS
    ) -> list[Image.Image]:
        """Show what a search looks for: its first hypotheses, decoded.

        Args:
            image: As `search` takes it.
            text: The modification.
            method: As `search` takes it.
            most: The number of images; there are no more than hypotheses.
            controls: As `search` takes them.

        Returns:
            RGB images. None without a decoder for this f_M, or by a method that does not search in its space.

        Raises:
            ArtifactError: The decoder is damaged.
            ControlError: The method cannot use a control.
            ParameterError: There is no such method.
            RequestError: The image cannot be read, or the text is empty.
        """
        return self._inner.decoded(self._inner.search(self._request(image, text, method, 1, controls)), most)

    def _request(self, image: Reference, text: str, method: str, top: int, controls: Controls) -> Request:
        gallery = self._inner.gallery
        reference, own_id = as_reference(image, gallery)
        asked = method or gallery.default_method
        return Request(reference, text, asked, top, exclude=own_id, controls=controls, where=self._where)
