"""Sampling the requests of several threads together, where a GPU gains from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipeline.fusion_diff import SamplerSettings
from pipeline.gpu.batcher import SamplingBatcher
from pipeline.query.sampling import TargetSampler


@contextmanager
def released(lock: threading.Lock) -> Iterator[None]:
    """Let go of a lock that this thread holds, and take it again after the block."""
    lock.release()
    try:
        yield
    finally:
        lock.acquire()


class SharedSampler:
    """A sampler that puts the queries of all threads that wait into one batch.

    Nobody waits for company: whoever comes while a batch is sampled makes up the next one. Other scales and negative
    texts are sampled by themselves.
    """

    def __init__(self, sampler: Any, lock: threading.Lock):
        """lock: held by the thread that samples. It is free while the thread waits for its batch."""
        self.sampler, self._lock = sampler, lock
        self.batcher = SamplingBatcher(sampler, wait_ms=0.0)

    @property
    def settings(self) -> SamplerSettings:
        return self.sampler.settings

    @property
    def gains_from_batches(self) -> bool:
        return self.sampler.gains_from_batches

    def scaled(self, guidance_scale: float | None = None, control_scale: float | None = None) -> TargetSampler:
        """This sampler, or one with other scales that shares no batches."""
        scaled = self.sampler.scaled(guidance_scale, control_scale)
        return self if scaled is self.sampler else scaled

    def sample(
        self,
        ids: Sequence[str],
        text_states: Tensor,
        text_mask: Tensor | None,
        control: Tensor | None = None,
        *,
        negative: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        """As `Sampler.sample`; the targets [Q, K, d] are on the CPU."""
        if negative is not None:
            return self.sampler.sample(ids, text_states, text_mask, control, negative=negative, **options)
        promises = [
            self.batcher.submit(
                query_id,
                text_states[row] if text_mask is None else text_states[row][text_mask[row]],
                None if control is None else control[row],
                **options,
            )
            for row, query_id in enumerate(ids)
        ]
        with released(self._lock):
            targets = [promise.result() for promise in promises]
        return torch.stack(targets)

    def close(self) -> None:
        """End the thread that samples."""
        self.batcher.close()
