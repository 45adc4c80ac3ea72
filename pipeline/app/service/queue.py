"""Searches of many callers: one thread answers, and those that wait meanwhile are answered together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pipeline.app.search.answers import Answer
from pipeline.app.search.requests import Request
from pipeline.app.search.searcher import Searcher
from pipeline.app.service.problems import ServiceError

MAX_WAITING = 256
"""Jobs that wait. Whoever comes then is told to come again."""
MAX_TOGETHER = 16
"""Searches that are answered together."""


@dataclass
class _Job:
    """A search, or any other work with the models."""

    request: Request | None = None
    call: Callable[[], Any] | None = None
    result: Future[Any] = field(default_factory=Future)

    def fits(self, other: _Job) -> bool:
        """Whether both can be answered together."""
        mine, theirs = self.request, other.request
        if mine is None or theirs is None or mine.controls.region is not None:
            return False
        return (mine.method, mine.controls, mine.where) == (theirs.method, theirs.controls, theirs.where)


class SearchQueue:
    """Answers searches in the order in which they come, with all that wait and fit.

    Nobody waits for company: whoever comes while others are answered makes up the next batch. What a search gets does
    not depend on its company, but for the last bits of its scores.

    Args:
        searcher: Answers.
        max_waiting: Jobs that may wait.
        max_together: Searches in a batch.
        answered: Called with the size of every batch.
    """

    def __init__(
        self,
        searcher: Searcher,
        max_waiting: int = MAX_WAITING,
        max_together: int = MAX_TOGETHER,
        answered: Callable[[int], None] = lambda size: None,
    ):
        self.searcher, self._max_waiting, self._max_together = searcher, max_waiting, max_together
        self._answered = answered
        self._jobs: deque[_Job] = deque()
        self._changed, self._closed = threading.Condition(), False
        self._worker = threading.Thread(target=self._work, name="searches", daemon=True)
        self._worker.start()

    def __len__(self) -> int:
        """The number of jobs that wait."""
        return len(self._jobs)

    def search(self, request: Request) -> Future[Answer]:
        """Ask for a search without waiting. Raises ServiceError when too many wait."""
        return self._add(_Job(request=request))

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Ask for other work without waiting. Raises ServiceError when too many wait."""
        return self._add(_Job(call=function))

    def close(self) -> None:
        """Answer what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    def _add(self, job: _Job) -> Future[Any]:
        with self._changed:
            if self._closed:
                raise ServiceError(503, "closing", "the server is about to end")
            if len(self._jobs) >= self._max_waiting:
                raise ServiceError(503, "busy", f"{len(self._jobs)} requests wait already; try again in a moment")
            self._jobs.append(job)
            self._changed.notify()
        return job.result

    def _work(self) -> None:
        while batch := self._collect():
            self._answer([job for job in batch if job.result.set_running_or_notify_cancel()])

    def _collect(self) -> list[_Job]:
        """The job that has waited longest, with all that fit; nothing when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return []
            first = self._jobs.popleft()
            fitting = [job for job in self._jobs if first.fits(job)][: self._max_together - 1]
            for job in fitting:
                self._jobs.remove(job)
            return [first, *fitting]

    def _answer(self, batch: list[_Job]) -> None:
        requests = [job.request for job in batch if job.request is not None]
        try:
            if requests:
                answers: list[Any] = self.searcher.search_together(requests)
                self._answered(len(requests))
            else:
                answers = [job.call() for job in batch if job.call is not None]
        except Exception as error:  # whatever it is, the callers wait for an answer
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for job in batch:  # only whose fault it is gets the error
                self._answer([job])
            return
        for job, answer in zip(batch, answers, strict=True):
            job.result.set_result(answer)
