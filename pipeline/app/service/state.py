"""What the routes of one server share, and how work gets from them to the models and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar
from urllib.parse import quote

import anyio

from pipeline.app.search.answers import Answer
from pipeline.app.search.galleries import FolderGallery
from pipeline.app.search.searcher import Searcher
from pipeline.app.service import models
from pipeline.app.service.changes import Changes
from pipeline.app.service.metrics import Metrics
from pipeline.app.service.problems import ServiceError, as_service_error
from pipeline.app.service.queue import SearchQueue
from pipeline.app.service.settings import Settings

Result = TypeVar("Result")
MAX_CHANGING = 4
"""Callers whose changes are checked at once; they happen one after the other."""
MAX_DECODING = 4
"""Callers whose images are decoded or encoded at once: it bounds the memory for their pixels."""


class Service:
    """The searcher behind a queue, with the figures about it.

    Args:
        searcher: The gallery and the models.
        settings: How the server answers.
    """

    def __init__(self, searcher: Searcher, settings: Settings):
        self.searcher, self.gallery, self.settings = searcher, searcher.gallery, settings
        self.queue = SearchQueue(searcher, answered=lambda size: self.metrics.together.observe(size))
        self.metrics = Metrics(lambda: len(self.queue), lambda: len(self.gallery.ids))
        self.changes = Changes(searcher)
        self._decoding = anyio.CapacityLimiter(MAX_DECODING)
        self._changing = anyio.CapacityLimiter(MAX_CHANGING)

    async def aside(self, function: Callable[[], Result]) -> Result:
        """Run what reads or decodes images in a thread."""
        with self._errors():
            async with asyncio.timeout(self.settings.seconds):
                return await anyio.to_thread.run_sync(function, limiter=self._decoding, abandon_on_cancel=True)

    async def changed(self, function: Callable[[], Result]) -> Result:
        """Run a change of the gallery in a thread. It goes on when the time is up."""
        with self._errors():
            async with asyncio.timeout(self.settings.seconds):
                return await anyio.to_thread.run_sync(function, limiter=self._changing, abandon_on_cancel=True)

    async def answered(self, future: Future[Result]) -> Result:
        """Wait for a job of the queue, at most as long as the settings say. A job that is given up does not start."""
        with self._errors():
            return await asyncio.wait_for(asyncio.wrap_future(future), self.settings.seconds)

    def _errors(self) -> _Errors:
        return _Errors(self.settings.seconds)

    def answer_of(self, answer: Answer) -> models.Answer:
        """A searcher's answer as it is sent, counted."""
        for part, seconds in answer.seconds.items():
            self.metrics.parts.labels(answer.method, part).observe(seconds)
        return models.Answer(
            method=answer.method,
            space=answer.space,
            hits=[
                models.Hit(
                    id=hit.image_id, name=hit.name, link=link_of(hit.image_id), rank=rank, score=round(hit.score, 6)
                )
                for rank, hit in enumerate(answer.hits, start=1)
            ],
            descriptions=answer.descriptions,
            seconds={part: round(seconds, 4) for part, seconds in answer.seconds.items()},
        )

    def image_of(self, image_id: str) -> models.Image:
        """An image of the gallery."""
        return models.Image(id=image_id, name=self.gallery.name_of(image_id), link=link_of(image_id))

    def listed(self, ids: list[str]) -> list[models.ListedImage]:
        """Images of the gallery with their metadata."""
        library = self.gallery.library if isinstance(self.gallery, FolderGallery) else None
        fields = {one.id: one.metadata for one in library.entries(ids)} if library else {}
        return [models.ListedImage(**dict(self.image_of(one)), fields=fields.get(one, {})) for one in ids]


class _Errors:
    """Turns whatever happens in its block into a ServiceError."""

    def __init__(self, seconds: float):
        self._seconds = seconds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TimeoutError):
            raise ServiceError(504, "too_late", f"no answer within {self._seconds:g} seconds; try again") from None
        if isinstance(error, Exception):
            raise as_service_error(error) from None


def link_of(image_id: str) -> str:
    """The path of an image on the server."""
    return f"/v1/images/{quote(image_id, safe='/')}"
