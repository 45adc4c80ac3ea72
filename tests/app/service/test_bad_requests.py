"""Whatever is sent gets one sentence with a status below 500."""

import base64
import json
import random
import socket

import httpx
import pytest

GOOD = {"text": "in red", "method": "slerp", "top": 2}


def check(answer: httpx.Response, status: int | None = None, words: str = "") -> None:
    assert 400 <= answer.status_code < 500, answer.text
    assert status in (None, answer.status_code), answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message"} and error["code"] and "\n" not in error["message"]
    assert words in error["message"], error


@pytest.fixture(scope="session")
def first(shared_searcher) -> dict:
    return {"id": shared_searcher.gallery.ids[0]}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"references": []}, 422, "at least one with a weight above 0"),
        ({"references": [{"id": "nothing"}]}, 404, "references.0.id: 'nothing' is no image of this gallery"),
        ({"references": [{"id": "../params.yaml"}]}, 404, "is no image of this gallery"),
        ({"references": [{"id": "/etc/passwd"}]}, 404, "is no image of this gallery"),
        ({"references": [{"id": "a\0b"}]}, 404, "is no image of this gallery"),
        ({"references": [{}]}, 422, "references.0: either id or image is needed"),
        ({"references": [{"image": "http://example.org/a.png"}]}, 422, "addresses are not fetched"),
        ({"references": [{"image": "aGFsbG8="}]}, 422, "references.0.image: the image cannot be decoded"),
        ({"references": [{"image": ""}]}, 422, "references.0.image: the image has no bytes"),
        ({"references": "x"}, 422, "references: "),
        ({"references": [{"id": "x", "weight": 1e9}]}, 422, "references.0.weight: "),
        ({"text": ""}, 422, "the modification is empty"),
        ({"text": " ", "method": "image_text"}, 422, "the modification is empty"),
        ({"text": "x" * 1001}, 422, "text: "),
        ({"text": 7}, 422, "text: "),
        ({"text": "\ud800"}, 422, "text: "),
        ({"method": "magic"}, 422, "method: 'magic' is not one of"),
        ({"top": 0}, 422, "top: "),
        ({"top": 1e300}, 422, "top: "),
        ({"top": float("nan")}, 422, "top: "),
        ({"region": [0, 0, 1, 1]}, 422, "region: slerp takes none"),
        ({"region": [0.9, 0, 0.1, 1], "method": "diffcomp"}, 422, "region '0.9,0,0.1,1'"),
        ({"region": [0, 0, 1]}, 422, "region.3: "),
        ({"mask": "aGFsbG8=", "method": "diffcomp"}, 422, "mask: the image cannot be decoded"),
        ({"mask": "x", "region": [0, 0, 1, 1]}, 422, "region, mask: one of them"),
        ({"liked": ["nothing"]}, 404, "liked: 'nothing' is no image"),
        ({"disliked": ["x"] * 101}, 422, "disliked: "),
        ({"liked_weight": -1}, 422, "liked_weight: "),
        ({"negative_weight": 2}, 422, "negative_weight: "),
        ({"hypotheses": 65}, 422, "hypotheses: "),
        ({"guidance_scale": float("inf")}, 422, "guidance_scale: "),
        ({"unknown": 1}, 422, "unknown: "),
    ],
)
def test_a_wrong_field_is_named(http, first, change, status, words):
    body = json.dumps({"references": [first], **GOOD, **change})
    check(http.post("/v1/search", content=body, headers={"Content-Type": "application/json"}), status, words)


def test_weights_that_cancel_each_other(http, first):
    both = [first, {**first, "weight": -1}]
    check(http.post("/v1/search", json={**GOOD, "references": both, "method": "image_only"}), 422, "cancel each other")


def test_a_bomb_is_told_by_its_header(http, make_bomb):
    bomb = base64.b64encode(make_bomb(60_000, 60_000)).decode()
    check(http.post("/v1/search", json={**GOOD, "references": [{"image": bomb}]}), 422, "at most")


@pytest.mark.parametrize("size", ["33554433", "9" * 30])
def test_what_says_that_it_is_too_large_is_not_waited_for(url, size):
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/search HTTP/1.1\r\nHost: {address.host}\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))


def test_what_is_too_large_is_not_read(http):
    check(http.post("/v1/search", content=b"x" * (33 * 2**20)), 413, "at most 32 MiB")

    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 2**20

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    check(http.post("/v1/search/upload", content=endless(), headers=form), 413, "at most 32 MiB")


def test_an_error_in_a_batch_says_where(http, first):
    searches = [{**GOOD, "references": [first]}, {**GOOD, "references": [{"id": "nothing"}]}]
    check(http.post("/v1/search/batch", json={"searches": searches}), 404, "searches.1: references.0.id: 'nothing'")
    check(http.post("/v1/search/batch", json={"searches": []}), 422, "searches: ")
    check(http.post("/v1/search/batch", json={"searches": searches[:1] * 33}), 422, "searches: ")


def test_uploads_that_are_no_images(http):
    field = {"search": json.dumps(GOOD)}
    check(http.post("/v1/search/upload", data=field, files={"image": ("a.png", b"words")}), 422, "image: the image")
    check(http.post("/v1/search/upload", data=field, files={"image": ("a.png", b"")}), 422, "image: the image has no")
    check(http.post("/v1/search/upload", data=field), 422, "image: ")
    check(http.post("/v1/search/upload", data={"search": "{"}, files={"image": b"x"}), 422, "search: ")
    check(http.post("/v1/search/upload", data=field, files=[("image", b"x")] * 9), 422, "")
    check(http.post("/v1/search/upload", data={**field, "image": "a.png"}), 422, "a text, where a file is expected")
    check(http.post("/v1/search/upload", data=field, files=[("image", b"x")] * 1_001), 400, "Too many files")


@pytest.mark.parametrize("path", ["../params.yaml", "..%2f..%2fetc/passwd", "%00", "words.png", ".cir/files", "%ff"])
def test_no_file_outside_the_gallery_is_served(http, path):
    check(http.get(f"/v1/images/{path}"), 404)


def test_other_methods_addresses_and_types(http):
    check(http.get("/v1/search"), 405, "does not take this method")
    check(http.get("/v1/nothing"), 404, "no such address")
    check(http.post("/v1/search", content=b"{}", headers={"Content-Type": "text/plain"}), 422)
    check(http.post("/v1/search", content=b"{", headers={"Content-Type": "application/json"}), 422, "it is no JSON")
    check(http.post("/v1/describe", json={"text": "a cat"}), 422, "at least one with a weight above 0")
    check(http.post("/v1/search", content=b"[" * 100_000, headers={"Content-Type": "application/json"}))
    check(http.get("/v1/images", params={"limit": 0}), 422, "limit: ")
    check(http.get("/v1/info", headers={"Host": "evil.example"}), 421, "loopback names")
    check(http.get("/v1/info", headers={"Origin": "http://evil.example"}), 403, "--allow-origin")


JUNK = [
    *(None, True, -1, 0, 1e308, -(2**70), 3.5, "", "x", "\0", "\u202e", "%s{}${x}", "../../etc/passwd", "é" * 5_000),
    *(
        [],
        [[]],
        {},
        {"id": 1},
        [{"id": None}],
        [None] * 200,
        {"a": {"b": [1] * 50}},
        "<script>",
        "'; DROP TABLE images",
    ),
    *(base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 40).decode(), base64.b64encode(b"GIF89a").decode(), "====", "A"),
]
FIELDS = [
    *("references", "text", "method", "top", "negative", "negative_weight", "concept", "region", "mask", "liked"),
    *("disliked", "liked_weight", "disliked_weight", "hypotheses", "guidance_scale", "control_scale", "weight", "\0"),
]
PATHS = ["/v1/search", "/v1/search/batch", "/v1/search/upload", "/v1/explain", "/v1/describe"]
TYPES = ["application/json", "text/plain", "multipart/form-data; boundary=x", "multipart/form-data", "image/png", "a"]


def malformed(random_: random.Random, first: dict) -> tuple[str, bytes, str]:
    """Path, body and type of a request that is wrong in one to three places."""
    path = random_.choice(PATHS)
    body: object = {"references": [dict(first)], **GOOD}
    for _ in range(random_.randint(1, 3)):
        target = random_.choice([body, body["references"][0] if isinstance(body["references"], list) else body])
        if isinstance(target, dict):
            target[random_.choice([*FIELDS, "id", "image"])] = random_.choice(JUNK)
        if not (isinstance(body["references"], list) and body["references"]):
            break
    if path.endswith("batch"):
        body = {"searches": random_.choice([[body], body, [body, random_.choice(JUNK)]])}
    content = json.dumps(body).encode()
    kind = random_.random()
    if kind < 0.1:
        content = random_.randbytes(random_.randint(0, 200))
    elif kind < 0.25:
        position = random_.randrange(len(content))
        content = content[:position] + random_.randbytes(random_.randint(0, 3)) + content[position + 1 :]
    elif kind < 0.35:
        content = b'--x\r\nContent-Disposition: form-data; name="image"; filename="../a"\r\n\r\n' + content
    return path, content, random_.choice(TYPES) if random_.random() < 0.2 else TYPES[0]


def test_a_thousand_malformed_requests_end_in_no_error_of_the_server(http, first):
    random_, rejected = random.Random(0), 0
    for number in range(1_000):
        path, content, kind = malformed(random_, first)
        answer = http.post(path, content=content, headers={"Content-Type": kind})
        assert answer.status_code < 500, (number, path, content[:300], kind, answer.text)
        if answer.status_code != 200:
            check(answer)
            rejected += 1
    assert rejected > 800
    assert http.post("/v1/search", json={**GOOD, "references": [first]}).status_code == 200
