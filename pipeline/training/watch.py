"""Losses and gradient norms that are not finite, found without making a GPU wait for every step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor


class Watch:
    """Calls `refuse` with the first step whose loss or gradient norm is not finite.

    Reading a number at once empties the GPU's queue of work. So step s is read when step s + delay has been queued. By
    then later steps may have used spoilt weights: call `flush` before anything is kept of them.

    Args:
        refuse: Called with the step, its loss and its gradient norm.
        delay: Steps; 0 reads at once.
    """

    def __init__(self, refuse: Callable[[int, float, float], None], delay: int = 0):
        self._refuse, self._delay = refuse, delay
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Scalars of the step that was just queued."""
        values, copied = torch.stack([loss.detach().float(), norm.detach().float()]), None  # [2]
        if values.is_cuda:
            values = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._pending.append((step, values, copied))
        while len(self._pending) > self._delay:
            self._read()

    def flush(self) -> None:
        """Read all that is left."""
        while self._pending:
            self._read()

    def _read(self) -> None:
        step, values, copied = self._pending.popleft()
        if copied is not None:
            copied.synchronize()
        loss, norm = values.tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse(step, loss, norm)
