"""The queue: who is answered together, who fails, and who is told to come again."""

import threading
from types import SimpleNamespace

import pytest
from PIL import Image

from pipeline.app.search.requests import Request
from pipeline.query.interface import Controls

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
from pipeline.app.service.problems import ServiceError
from pipeline.app.service.queue import SearchQueue

WHITE = Image.new("RGB", (8, 8), "white")


class Slow:
    """A searcher that answers when it is let go, with the texts of what it was asked together."""

    def __init__(self):
        self.go, self.batches = threading.Event(), []

    def search_together(self, requests):
        self.go.wait(10)
        self.batches.append([request.text for request in requests])
        if any(request.text == "bad" for request in requests):
            raise ValueError("bad")
        return [SimpleNamespace(text=request.text) for request in requests]


def request(text: str, method: str = "slerp", **controls) -> Request:
    return Request(WHITE, text, method, controls=Controls(**controls))


@pytest.fixture
def slow():
    slow = Slow()
    yield slow
    slow.go.set()


def started(queue: SearchQueue) -> None:
    """Wait until the worker has taken what waits."""
    while len(queue):
        threading.Event().wait(0.01)


def test_what_waits_and_fits_is_answered_together(slow):
    sizes: list[int] = []
    queue = SearchQueue(slow, max_together=3, answered=sizes.append)
    first = queue.search(request("0"))
    started(queue)
    asked = [
        request("a"),
        request("b", "diffcomp"),
        request("c"),
        request("d", negative="x"),
        request("e"),
        request("f"),
    ]
    futures = [queue.search(one) for one in asked]
    slow.go.set()
    assert [future.result(10).text for future in (first, *futures)] == ["0", "a", "b", "c", "d", "e", "f"]
    assert slow.batches == [["0"], ["a", "c", "e"], ["b"], ["d"], ["f"]] and sizes == [1, 3, 1, 1, 1]


def test_only_the_wrong_one_fails(slow):
    queue = SearchQueue(slow)
    queue.search(request("0"))
    started(queue)
    good, bad, other = (queue.search(request(text)) for text in ("good", "bad", "other"))
    slow.go.set()
    assert good.result(10).text == "good" and other.result(10).text == "other"
    with pytest.raises(ValueError, match="bad"):
        bad.result(10)


def test_too_many_are_told_to_come_again_and_who_left_is_not_answered(slow):
    queue = SearchQueue(slow, max_waiting=2)
    queue.search(request("0"))
    started(queue)
    left, call = queue.search(request("left")), queue.call(lambda: 7)
    with pytest.raises(ServiceError, match="2 requests wait already") as busy:
        queue.search(request("more"))
    assert (busy.value.status, busy.value.code) == (503, "busy")
    left.cancel()
    slow.go.set()
    assert call.result(10) == 7 and slow.batches == [["0"]]


def test_a_closed_queue_answers_what_waits_and_takes_no_more(slow):
    queue = SearchQueue(slow)
    futures = [queue.search(request(str(number))) for number in range(3)]
    slow.go.set()
    queue.close()
    assert [future.result(0).text for future in futures] == ["0", "1", "2"]
    with pytest.raises(ServiceError, match="about to end"):
        queue.search(request("more"))
