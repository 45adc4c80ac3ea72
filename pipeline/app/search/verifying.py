"""A multimodal LLM verifies the first answers of one search."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.app.search.answers import Answer
from pipeline.app.search.galleries import Gallery
from pipeline.app.search.reference import RequestError
from pipeline.app.search.requests import REFERENCE, Request
from pipeline.config import ParameterError, Params
from pipeline.encoders.image_source import ImageSource, InMemoryImages
from pipeline.rerank.trained import check_trained

if TYPE_CHECKING:
    from pipeline.query.models import Models


class GalleryImages(ImageSource):
    """A gallery's images. f_M reduces them itself."""

    def __init__(self, gallery: Gallery):
        self._gallery = gallery

    def image(self, image_id: str, max_side: int = 0) -> Image.Image:
        return self._gallery.shown(image_id).image


def can_verify(params: Params) -> bool:
    """Whether a model verifies answers here."""
    try:
        check_trained(params.reranker)
    except ParameterError:
        return False
    return bool(params.reranker.path)


def check_reranked(request: Request, gallery: Gallery, params: Params) -> None:
    """Raise an error, before any model is loaded, for answers that cannot be verified.

    Raises:
        RequestError: More are asked for than the gallery has images.
        ParameterError: Nothing verifies them; names the option or the command that mends it.
    """
    if not request.rerank:
        return
    if request.rerank > len(gallery.ids):
        raise RequestError(f"rerank: {request.rerank} is more than the {len(gallery.ids)} images of {gallery.name}")
    if not params.reranker.path:
        raise ParameterError("rerank: no multimodal LLM verifies answers here; --describer names one")
    check_trained(params.reranker)


def verified(request: Request, answer: Answer, gallery: Gallery, models: Models) -> Answer:
    """An answer whose first `request.rerank` hits are in the order of P(yes), mixed with their scores.

    Args:
        request: What was asked.
        answer: The hits, the best first.
        gallery: Holds their images.
        models: Hold the verifier, and the parameters of the question and of the mixture.

    Returns:
        The same hits with the scores that they are now ordered by. The time is added as `rerank`.

    Raises:
        ArtifactError: The verifier cannot be loaded.
        ParameterError: It has no token for yes or no.
    """
    from pipeline.rerank.order import mixed_scores, new_order
    from pipeline.rerank.verify import Reranker

    start = time.perf_counter()
    asked = [[hit.image_id for hit in answer.hits[: request.rerank]]]
    reranker = Reranker(models.params.reranker, models.verifier)
    (yes,) = reranker.probabilities(
        [request.query()], asked, InMemoryImages({REFERENCE: request.image}), GalleryImages(gallery)
    )
    hits = answer.hits
    if hits:
        mixed = mixed_scores([hit.score for hit in hits], yes.tolist(), models.params.rerank.weight)
        hits = [replace(hits[place], score=float(mixed[place])) for place in new_order(mixed)]
    return replace(answer, hits=hits, seconds={**answer.seconds, "rerank": time.perf_counter() - start})
