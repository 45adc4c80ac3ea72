"""The application: routes, middleware, and the page on the same process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Security
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPBearer
from starlette.middleware.cors import CORSMiddleware

from pipeline.app.errors import ServeError
from pipeline.app.search.searcher import Searcher
from pipeline.app.service.access import Access
from pipeline.app.service.metrics import CountRequests
from pipeline.app.service.problems import handle_errors
from pipeline.app.service.routes import build_router
from pipeline.app.service.settings import Settings
from pipeline.app.service.state import Service

PAGE = "/demo"


def build_app(searcher: Searcher, settings: Settings) -> FastAPI:
    """The application over one gallery.

    Args:
        searcher: The gallery and the models.
        settings: How the server answers.

    Returns:
        An ASGI application. Its end answers what waits.

    Raises:
        ServeError: The page is asked for, and gradio is missing.
    """
    service = Service(searcher, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.queue.close()

    app = FastAPI(
        title="Composed image retrieval",
        description="Search images by reference images and a text that says what should be different.",
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    key = [Security(HTTPBearer(auto_error=False, description="The API key."))] if settings.key else []
    app.include_router(build_router(service), dependencies=key)
    handle_errors(app)
    start = PAGE if settings.with_page else "/docs"
    app.add_api_route("/", lambda: RedirectResponse(start), include_in_schema=False)
    if settings.with_page:
        try:
            from pipeline.app.page.server import mount
        except ImportError:
            message = "gradio is missing; `pip install '.[demo]'` installs it, and --no-page leaves the page out"
            raise ServeError(message) from None
        mount(app, searcher, PAGE)
    app.add_middleware(Access, settings=settings)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(CountRequests, metrics=service.metrics)
    return app
