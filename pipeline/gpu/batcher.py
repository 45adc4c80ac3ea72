"""Queries of many callers at once, sampled together."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.fusion_diff.conditions import TextConditions, check_vectors
from pipeline.fusion_diff.sampler import Sampler


@dataclass
class _Request:
    query_id: str
    states: Tensor
    control: Tensor | None
    hypotheses: int
    seed: int
    result: Future[Tensor] = field(default_factory=Future)


class SamplingBatcher:
    """Gives a sampler the queries that callers' threads ask within `wait_ms` of each other as one batch.

    What a query gets does not depend on its company, since its noise belongs to its id; only the
    waiting does. One thread samples. Use it as a context manager, or `close` it.
    """

    def __init__(self, sampler: Sampler, batch_size: int = 32, wait_ms: float = 5.0, seed: int = 0):
        if batch_size < 1 or wait_ms < 0.0:
            raise ValueError(f"batcher: batch_size {batch_size} must be at least 1, wait_ms {wait_ms} at least 0")
        self.sampler, self.batch_size, self.wait_ms, self.seed = sampler, batch_size, wait_ms, seed
        self.batches: list[int] = []
        """Sizes of the batches so far, in queries."""
        self._waiting: queue.Queue[_Request | None] = queue.Queue()
        self._lock, self._closed = threading.Lock(), False
        self._worker = threading.Thread(target=self._work, name="sampling", daemon=True)
        self._worker.start()

    def submit(
        self, query_id: str, states: Tensor, control: Tensor | None = None, hypotheses: int = 1, seed: int | None = None
    ) -> Future[Tensor]:
        """A promise of L2-normalised targets [K, d] on the CPU.

        states: the description's token states [T, text_dim]. control: z_r,delta [d]. seed: instead of the
        batcher's; queries of other seeds or numbers of hypotheses are sampled apart. What cannot be
        sampled is refused here with ValueError, alone, before it can spoil its batch; RuntimeError after `close`.
        """
        sizes = self.sampler.prior.sizes
        if states.ndim != 2 or states.shape[1] != sizes.text_dim or not 1 <= len(states) <= sizes.text_tokens:
            raise ValueError(
                f"batcher: query {query_id} has text states {tuple(states.shape)}, "
                f"expected 1 to {sizes.text_tokens} tokens of {sizes.text_dim} numbers"
            )
        if not torch.isfinite(states).all():
            raise ValueError(f"batcher: query {query_id} has a text state that is not finite")
        if (self.sampler.adapter is None) != (control is None):
            wanted = "needs no" if self.sampler.adapter is None else "needs a"
            raise ValueError(f"batcher: query {query_id}: this sampler {wanted} control vector")
        if control is not None:
            check_vectors(control[None], sizes.dim, "batcher: control", [query_id])
        if hypotheses < 1:
            raise ValueError(f"batcher: query {query_id} asks for {hypotheses} hypotheses, at least 1 is needed")
        request = _Request(query_id, states.float().cpu(), control, hypotheses, self.seed if seed is None else seed)
        with self._lock:
            if self._closed:
                raise RuntimeError("batcher: it is closed")
            self._waiting.put(request)
        return request.result

    def sample(
        self, query_id: str, states: Tensor, control: Tensor | None = None, hypotheses: int = 1, seed: int | None = None
    ) -> Tensor:
        """As `submit`, waiting for the targets."""
        return self.submit(query_id, states, control, hypotheses, seed).result()

    def close(self) -> None:
        """Answer what was asked, then stop."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._worker.join()

    def __enter__(self) -> SamplingBatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self) -> None:
        going_on = True
        while going_on:
            batch, going_on = self._collect()
            for kind in sorted({(request.hypotheses, request.seed) for request in batch}):
                self._answer([request for request in batch if (request.hypotheses, request.seed) == kind], *kind)

    def _collect(self) -> tuple[list[_Request], bool]:
        """The next batch, and whether more may come: waits for the first query, then at most wait_ms for others."""
        first = self._waiting.get()
        if first is None:
            return [], False
        batch, until = [first], time.monotonic() + self.wait_ms / 1e3
        while len(batch) < self.batch_size:
            try:
                request = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if request is None:
                return batch, False
            batch.append(request)
        return batch, True

    def _answer(self, batch: list[_Request], hypotheses: int, seed: int) -> None:
        batch = [request for request in batch if request.result.set_running_or_notify_cancel()]
        if not batch:
            return
        ids = [request.query_id for request in batch]
        self.batches.append(len(batch))
        try:
            text = TextConditions.from_list([request.states for request in batch], ids).batch(torch.arange(len(batch)))
            control = None if batch[0].control is None else torch.stack([request.control for request in batch])
            drawn = self.sampler.sample(ids, *text, control, hypotheses=hypotheses, seed=seed).cpu()  # [Q, K, d]
        except Exception as error:  # whatever it is, the callers wait for an answer
            for request in batch:
                request.result.set_exception(error)
            return
        for request, targets in zip(batch, drawn, strict=True):
            request.result.set_result(targets)
