"""Who may ask, and for how long: a key, no foreign pages, and bodies of a bounded size that come in time."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.app.service.models import MAX_BODY
from pipeline.app.service.problems import TOO_LARGE, answer_of
from pipeline.app.service.settings import Settings

API = "/v1/"
"""Paths whose bodies are bounded here. The page bounds its own."""
OPEN = frozenset({"/health"})
"""Paths that need no key."""


class Access:
    """Middleware that asks for the key, turns foreign pages away, and bounds bodies in size and time.

    The key comes as `Authorization: Bearer KEY`, as `X-API-Key: KEY`, or as the password of HTTP Basic, which browsers
    ask for. A page of another origin may only call where CORS allows it.

    Args:
        app: What answers.
        settings: The key, the origins that may call, the server's own names, and the time for a body.
    """

    def __init__(self, app: ASGIApp, settings: Settings):
        self.app, self.settings, self.key = app, settings, settings.key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        rejected = self._rejected(scope["path"], Headers(scope=scope))
        if rejected is not None:
            await rejected(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(API):
            await self.app(scope, _Bounded(receive, time.monotonic() + self.settings.seconds), send)
        else:
            await self.app(scope, receive, send)

    def _rejected(self, path: str, headers: Headers) -> Response | None:
        """What a request gets that may not go on."""
        host, origin, own = headers.get("host", ""), headers.get("origin"), self.settings.own_hosts
        if own and _parts(f"//{host}").hostname not in own:
            return answer_of(421, "misdirected", "without an API key, this server answers to its loopback names alone")
        if not (origin is None or _parts(origin).netloc == host or {"*", origin} & set(self.settings.origins)):
            return answer_of(403, "forbidden", "pages of this origin may not call; see --allow-origin")
        if self.key and path not in OPEN and not hmac.compare_digest(_key_of(headers), self.key):
            asked = {"WWW-Authenticate": 'Basic realm="cir", charset="UTF-8"'}
            return answer_of(401, "unauthorised", "this server needs its API key", asked)
        size = headers.get("content-length", "")
        if path.startswith(API) and size.isdecimal() and (len(size) > 18 or int(size) > MAX_BODY):
            return answer_of(413, "too_large", TOO_LARGE)
        return None


class _Bounded:
    """Receives a body of at most `MAX_BODY` bytes until a time. Raises HTTPException with status 413 or 408 else."""

    def __init__(self, receive: Receive, until: float):
        self._receive, self._until, self._bytes, self._is_whole = receive, until, 0, False

    async def __call__(self) -> Message:
        if self._is_whole:  # from here on, it waits for the caller to leave
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._until - time.monotonic())
        except TimeoutError:
            raise HTTPException(408) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > MAX_BODY:
            raise HTTPException(413)
        self._is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message


def _parts(address: str) -> SplitResult:
    """The parts of an address; none of what is no address."""
    try:
        parts = urlsplit(address)
        parts.hostname  # noqa: B018 - which looks for brackets
        return parts
    except ValueError:
        return urlsplit("")


def _key_of(headers: Headers) -> bytes:
    """The key that a request brings; empty where it brings none."""
    if own := headers.get("x-api-key"):
        return own.encode()
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip().encode()
    if kind.lower() != "basic":
        return b""
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
