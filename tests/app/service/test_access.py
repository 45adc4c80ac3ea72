"""Who may ask: the key, foreign pages, and bodies that do not come."""

import asyncio

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
from starlette.exceptions import HTTPException

from pipeline.app.errors import ServeError
from pipeline.app.service.access import Access
from pipeline.app.service.models import MAX_BODY
from pipeline.app.service.settings import Settings, settings_of


def status(settings: Settings, path: str = "/v1/info", chunks: list[bytes] | None = None, **headers: str) -> int:
    """What a request gets: 200 where the application behind has read the whole body."""
    sent, waiting = [], list(chunks or [b""])

    async def receive():
        if not waiting:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or chunks is not None}

    async def send(message):
        sent.append(message)

    async def application(scope, receive, send):
        try:
            while (await receive())["more_body"]:
                pass
            code = 200
        except HTTPException as error:
            code = error.status_code
        await send({"type": "http.response.start", "status": code})

    lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": lines}
    asyncio.run(Access(application, settings)(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 401),
        ({"authorization": "Bearer key"}, 200),
        ({"authorization": "bearer  key "}, 200),
        ({"authorization": "Bearer keys"}, 401),
        ({"authorization": "Bearer \xff"}, 401),
        ({"authorization": "Basic YTprZXk="}, 200),
        ({"authorization": "Basic YTprZXk"}, 401),
        ({"authorization": "Basic \xff"}, 401),
        ({"authorization": "Digest key"}, 401),
        ({"x_api_key": "key"}, 200),
        ({"x_api_key": ""}, 401),
    ],
)
def test_the_key(headers, expected):
    assert status(Settings(key="key"), **headers) == expected
    assert status(Settings(key="key"), "/health", **headers) == 200
    assert status(Settings(), **headers) == 200


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("a.example", "http://a.example", 200),
        ("a.example:8000", "http://a.example", 403),
        ("a.example", "http://b.example", 403),
        ("a.example", "https://shop.example", 200),
        ("a.example", "null", 403),
        ("a.example", "http://[", 403),
    ],
)
def test_pages_of_other_origins(host, origin, expected):
    settings = Settings(origins=("https://shop.example",))
    assert status(settings, host=host, origin=origin) == expected
    assert status(Settings(origins=("*",)), host=host, origin=origin) == 200


def test_names_of_the_server():
    settings = settings_of("127.0.0.1", (), 30.0, True)
    for host, expected in {
        "localhost:80": 200,
        "127.0.0.1": 200,
        "[::1]:80": 200,
        "a.b": 421,
        "[": 421,
        "": 421,
    }.items():
        assert status(settings, host=host) == expected
    assert status(settings_of("0.0.0.0", (), 30.0, True), host="a.b") == 200


def test_bodies_that_are_slow_or_large():
    assert status(Settings(seconds=0.1), chunks=[b"x"]) == 408
    half = b"x" * (MAX_BODY // 2 + 1)
    assert status(Settings(), chunks=[half, half]) == 413


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/", "ftp://a", "https://a b/c", ""])
def test_what_is_no_origin(origin):
    with pytest.raises(ServeError, match="--allow-origin"):
        settings_of("127.0.0.1", [origin], 30.0, True)


@pytest.mark.parametrize("key", ["", " ", "a ", "\xe4"])
def test_a_key_that_nobody_could_send(monkeypatch, key):
    monkeypatch.setenv("CIR_API_KEY", key)
    with pytest.raises(ServeError, match="CIR_API_KEY"):
        settings_of("127.0.0.1", (), 30.0, True)
