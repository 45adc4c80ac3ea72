"""The addresses below `/v1`, `/health` and `/metrics`."""

from __future__ import annotations

import base64
import io
from functools import partial
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Form, Query, Response, UploadFile
from PIL import Image
from pydantic import Json

from pipeline.app.search.answers import Answer
from pipeline.app.search.own_encoder import warning
from pipeline.app.search.requests import Request
from pipeline.app.search.results import thumbnail
from pipeline.app.service import inputs, models
from pipeline.app.service.changes import NewImage
from pipeline.app.service.models import error_responses
from pipeline.app.service.state import Service
from pipeline.artifacts import ArtifactError
from pipeline.diffcomp.explain import heat_map
from pipeline.query.registry import find_method
from pipeline.retrieval.spaces import FUSED

MAX_PAGE = 1_000
"""Images that are listed at once."""
_SENT = error_responses(400, 401, 404, 413, 422, 503, 504)


def build_router(service: Service) -> APIRouter:
    """All routes of one server.

    Args:
        service: What answers.
    """
    router = APIRouter()
    _add_searches(router, service)
    _add_images(router, service)
    _add_reports(router, service)
    return router


def _add_searches(router: APIRouter, service: Service) -> None:
    searcher, queue = service.searcher, service.queue

    async def answered(sent: models.Search, uploads: tuple[bytes, ...] = ()) -> models.Answer:
        request = await service.aside(lambda: inputs.to_request(sent, searcher, uploads))
        return service.answer_of(await service.answered(queue.search(request)))

    @router.post("/v1/search", tags=["search"], responses=_SENT)
    async def search(sent: models.Search) -> models.Answer:
        """Search by images of the gallery, or by images in base64."""
        return await answered(sent)

    @router.post("/v1/search/upload", tags=["search"], responses=_SENT)
    async def search_by_upload(
        image: Annotated[list[UploadFile], "Image files: the first references, with weight 1."],
        search: Annotated[Json[models.Search], Form(description="A search as JSON.")],
    ) -> models.Answer:
        """Search by uploaded image files."""
        return await answered(search, tuple([await file.read() for file in image]))

    @router.post("/v1/search/batch", tags=["search"], responses=_SENT)
    async def search_batch(sent: models.Searches) -> models.Answers:
        """Search several times. One that cannot be answered fails them all, and the error says which."""
        requests = []
        for number, one in enumerate(sent.searches):
            with inputs.numbered(f"searches.{number}"):
                requests.append(await service.aside(partial(inputs.to_request, one, searcher)))
        futures = [queue.search(request) for request in requests]
        return models.Answers(answers=[service.answer_of(await service.answered(future)) for future in futures])

    @router.post("/v1/describe", tags=["search"], responses=_SENT)
    async def describe(sent: models.Search) -> models.Description:
        """Let the multimodal LLM describe the target. Only references, text and concept count."""
        request = await service.aside(lambda: inputs.to_request(sent, searcher, needs_reference=True))
        return models.Description(descriptions=await service.answered(queue.call(lambda: searcher.describe(request))))

    @router.post("/v1/explain", tags=["search"], responses=_SENT)
    async def explain(sent: models.Search) -> models.Explanation:
        """Say what is kept of the reference, or which training captions are nearest to what was searched."""
        request = await service.aside(lambda: inputs.to_request(sent, searcher))
        return await service.answered(queue.call(lambda: _explained(service, request)))


def _explained(service: Service, request: Request) -> models.Explanation:
    answer, kept = service.searcher.search(request), service.searcher.explain(request)
    return models.Explanation(
        method=answer.method,
        descriptions=answer.descriptions,
        captions=_captions(service, answer),
        decoded=[_as_base64(image) for image in service.searcher.decoded(answer)],
        kept=None if kept is None else [[round(share, 4) for share in row] for row in kept.tolist()],
        heat_map=None if kept is None else _as_base64(heat_map(request.image, kept)),
    )


def _captions(service: Service, answer: Answer) -> list[models.Caption]:
    """The nearest training captions; none in another space, or where the training tables are not here."""
    if answer.space != FUSED:
        return []
    try:
        nearest = service.searcher.nearest_captions(answer)
    except ArtifactError:
        return []
    return [models.Caption(text=one.text, cosine=round(float(one.cosine), 4)) for one in nearest]


def _add_images(router: APIRouter, service: Service) -> None:
    @router.get("/v1/images", tags=["images"], responses=error_responses(401, 422))
    async def list_images(
        contains: Annotated[str, Query(max_length=200, description="A part of the id or of the name.")] = "",
        filter: Annotated[str, Query(max_length=2_000, description="On metadata, as in a search.")] = "",
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    ) -> models.Images:
        """List the gallery's images in its order."""
        wanted, gallery = contains.strip().casefold(), service.gallery

        def listed() -> models.Images:
            ids = inputs.selected(filter, gallery)
            if wanted:
                ids = [one for one in ids if wanted in one.casefold() or wanted in gallery.name_of(one).casefold()]
            return models.Images(total=len(ids), images=service.listed(ids[offset : offset + limit]))

        return await service.aside(listed)

    @router.get(
        "/v1/images/{image_id:path}",
        tags=["images"],
        response_class=Response,
        responses={200: {"content": {"image/webp": {}}}, **error_responses(401, 404, 410, 422)},
    )
    async def image(
        image_id: str, side: Annotated[int, Query(ge=16, le=1024, description="The longer side at most.")] = 1024
    ) -> Response:
        """An image of the gallery, as WebP and without metadata."""

        def encoded() -> bytes:
            return _encoded(thumbnail(inputs.gallery_image("id", image_id, service.searcher), side), "WEBP")

        return Response(await service.aside(encoded), media_type="image/webp")

    @router.post("/v1/images", tags=["images"], responses=error_responses(400, 401, 409, 413, 422, 503, 504, 507))
    async def add_images(
        image: Annotated[list[UploadFile], "Image files. Their names are their ids."],
        folder: Annotated[str, Form(max_length=400, description="Stands before the names.")] = "",
        metadata: Annotated[
            Json[dict[str, models.Metadata]] | None, Form(description="JSON: id -> field -> value.")
        ] = None,
        replace: Annotated[bool, Form(description="Whether files of these names may be replaced.")] = False,
    ) -> models.Added:
        """Add images to the library, with or without metadata: all of them, or none."""
        prefix = f"{folder}/" if folder else ""
        new = [NewImage(prefix + (file.filename or ""), await file.read()) for file in image]
        added, replaced = await service.changed(lambda: service.changes.add(new, metadata or {}, replace))
        return models.Added(added=added, replaced=replaced, images=[service.image_of(one.image_id) for one in new])

    @router.delete("/v1/images/{image_id:path}", tags=["images"], responses=error_responses(401, 404, 409, 422, 504))
    async def remove_image(
        image_id: str, file: Annotated[bool, Query(description="Whether its file is removed, too.")] = False
    ) -> models.Removed:
        """Remove an image from the library. Where its file stays, the next `cir index` of the folder finds it again."""
        await service.changed(lambda: service.changes.remove(image_id, file))
        return models.Removed(id=image_id)


def _add_reports(router: APIRouter, service: Service) -> None:
    searcher = service.searcher

    @router.get("/v1/info", tags=["server"], responses=error_responses(401))
    async def info() -> models.Info:
        """What is searched, and by which methods."""
        found = [find_method(name, searcher.params) for name in searcher.methods]
        return models.Info(
            version=version("composed-image-retrieval"),
            gallery=service.gallery.name,
            images=len(service.gallery.ids),
            methods=[
                models.MethodInfo(
                    name=one.name, label=one.label, note=one.note, space=one.space, controls=sorted(one.controls)
                )
                for one in found
            ],
            default_method=inputs.method_of(None, searcher),
            fields=dict(service.gallery.fields),
            warning=warning() if service.gallery.warns(searcher.params) else "",
        )

    @router.get("/health", tags=["server"])
    async def health() -> models.Health:
        """Whether the server answers. Needs no key."""
        return models.Health()

    @router.get("/metrics", tags=["server"], response_class=Response, responses=error_responses(401))
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _as_base64(image: Image.Image) -> str:
    return base64.b64encode(_encoded(image, "PNG")).decode()


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
