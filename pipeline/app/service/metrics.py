"""What Prometheus reads at `/metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_OTHER = "other"


class Metrics:
    """The figures of one server.

    Args:
        waiting: The number of searches that wait now.
        images: The number of images now.
    """

    def __init__(self, waiting: Callable[[], float], images: Callable[[], float]):
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self.requests = Counter("cir_requests", "Answered requests.", ("route", "status"), registry=self.registry)
        self.seconds = Histogram(
            "cir_request_seconds", "From a request to its answer.", ("route",), registry=self.registry, buckets=_SECONDS
        )
        self.parts = Histogram(
            "cir_search_seconds", "Parts of a search.", ("method", "part"), registry=self.registry, buckets=_SECONDS
        )
        self.together = Histogram(
            "cir_searches_together", "Searches in a batch.", registry=self.registry, buckets=(1, 2, 4, 8, 16, 32)
        )
        Gauge("cir_waiting", "Searches that wait.", registry=self.registry).set_function(waiting)
        Gauge("cir_images", "Images in the gallery.", registry=self.registry).set_function(images)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class CountRequests:
    """Middleware that counts and times requests by the pattern of their route, never by what a visitor sends.

    Args:
        app: What answers.
        metrics: Where the figures go.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", _OTHER)
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
