"""Queries of many callers at once, sampled together."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.fusion_diff.conditions import TextBatch, TextConditions, check_vectors
from pipeline.fusion_diff.prior import PriorSizes
from pipeline.fusion_diff.sampler import SamplerSettings, TargetSampler


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

    What a query gets does not depend on its company, since its noise belongs to its id; only the waiting does. One
    thread samples. It takes a sampler's place (`TargetSampler`). Use it as a context manager, or `close` it.

    Args:
        sampler: What draws the targets.
        batch_size: The most queries of a batch.
        wait_ms: Milliseconds that the first query of a batch waits for others.
        waiting: Called by `sample`; its context holds while the caller waits for a batch. A caller who holds a lock
            may give it back there.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        sampler: TargetSampler,
        batch_size: int = 32,
        wait_ms: float = 5.0,
        waiting: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ):
        if batch_size < 1 or wait_ms < 0.0:
            raise ValueError(f"batcher: batch_size {batch_size} must be at least 1, wait_ms {wait_ms} at least 0")
        self.sampler, self.batch_size, self.wait_ms, self.waiting = sampler, batch_size, wait_ms, waiting
        self.batches: list[int] = []
        """Sizes of the batches so far, in queries."""
        self._requests: queue.Queue[_Request | None] = queue.Queue()
        self._lock, self._closed = threading.Lock(), False
        self._worker = threading.Thread(target=self._work, name="sampling", daemon=True)
        self._worker.start()

    @property
    def settings(self) -> SamplerSettings:
        """Those of the sampler."""
        return self.sampler.settings

    @property
    def sizes(self) -> PriorSizes:
        """Those of the sampler."""
        return self.sampler.sizes

    @property
    def takes_control(self) -> bool:
        """Whether the sampler does."""
        return self.sampler.takes_control

    @property
    def gains_from_batches(self) -> bool:
        """No longer: it makes the batches."""
        return False

    def scaled(self, guidance_scale: float | None = None, control_scale: float | None = None) -> TargetSampler:
        """See `Sampler.scaled`. A sampler with other scales than this one's samples alone."""
        other = self.sampler.scaled(guidance_scale, control_scale)
        return self if other is self.sampler else other

    def sample(
        self,
        ids: Sequence[str],
        text: TextBatch,
        control: Tensor | None = None,
        hypotheses: int = 1,
        seed: int = 0,
        negative: TextBatch | None = None,
    ) -> Tensor:
        """Draw targets for some queries, in the batches of all who ask meanwhile; see `Sampler.sample`.

        Queries with negative texts are sampled by themselves.

        Returns:
            L2-normalised embeddings [Q, K, d] float32, on the CPU.

        Raises:
            ValueError: A query cannot be sampled; see `submit`.
            RuntimeError: The batcher is closed.
        """
        if negative is not None:
            return self.sampler.sample(ids, text, control, hypotheses, seed, negative).cpu()
        states, mask = text
        found = []
        for row, query_id in enumerate(ids):
            tokens = states[row] if mask is None else states[row][mask[row]]  # [T, text_dim]
            own = None if control is None else control[row]
            found.append(self.submit(query_id, tokens, own, hypotheses, seed))
        with self.waiting():
            return torch.stack([one.result() for one in found])

    def submit(
        self, query_id: str, states: Tensor, control: Tensor | None = None, hypotheses: int = 1, seed: int = 0
    ) -> Future[Tensor]:
        """Ask for one query's targets without waiting.

        What cannot be sampled is rejected here, alone, before it can spoil its batch.

        Args:
            query_id: Decides the noise, with `seed`.
            states: The description's token states [T, text_dim].
            control: z_r,delta [d]. A sampler without an adapter ignores it.
            hypotheses: K. Queries of other seeds or numbers of hypotheses are sampled apart.
            seed: Of the whole search.

        Returns:
            A future of L2-normalised targets [K, d] on the CPU.

        Raises:
            ValueError: The query cannot be sampled; names it.
            RuntimeError: The batcher is closed.
        """
        control = control if self.sampler.takes_control else None
        self._check(query_id, states, control)
        if hypotheses < 1:
            raise ValueError(f"batcher: query {query_id} asks for {hypotheses} hypotheses, at least 1 is needed")
        request = _Request(query_id, states.float().cpu(), control, hypotheses, seed)
        with self._lock:
            if self._closed:
                raise RuntimeError("batcher: it is closed")
            self._requests.put(request)
        return request.result

    def _check(self, query_id: str, states: Tensor, control: Tensor | None) -> None:
        sizes = self.sampler.sizes
        if states.ndim != 2 or states.shape[1] != sizes.text_dim or not 1 <= len(states) <= sizes.text_tokens:
            expected = f"expected 1 to {sizes.text_tokens} tokens of {sizes.text_dim} numbers"
            raise ValueError(f"batcher: query {query_id} has text states {tuple(states.shape)}, {expected}")
        if not torch.isfinite(states).all():
            raise ValueError(f"batcher: query {query_id} has a text state that is not finite")
        if self.sampler.takes_control:
            if control is None:
                raise ValueError(f"batcher: query {query_id}: this sampler needs a control vector")
            check_vectors(control[None], sizes.dim, "batcher: control", [query_id])

    def close(self) -> None:
        """Answer what was asked, then stop."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._requests.put(None)
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
        first = self._requests.get()
        if first is None:
            return [], False
        batch, until = [first], time.monotonic() + self.wait_ms / 1e3
        while len(batch) < self.batch_size:
            try:
                request = self._requests.get(timeout=max(0.0, until - time.monotonic()))
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
            controls = [request.control for request in batch if request.control is not None]
            control = torch.stack(controls) if controls else None
            drawn = self.sampler.sample(ids, text, control, hypotheses, seed).cpu()  # [Q, K, d]
        except Exception as error:  # whatever it is, the callers wait for an answer
            for request in batch:
                request.result.set_exception(error)
            return
        for request, targets in zip(batch, drawn, strict=True):
            request.result.set_result(targets)
