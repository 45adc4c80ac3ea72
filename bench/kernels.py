"""Where the time of GPU work goes: its kernels by what they do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from pipeline.training.meter import Meter

KINDS = {
    "attention": r"_attend|_delta|flash|fmha|sdpa",
    "products": r"gemm|nvjet|cutlass|xmma|cublas|gemv|split_?k",
    "norms, gates, GELU": r"_gate_norm|_gelu|_column_sums|layer_?norm|rms_?norm",
    "8-bit operands": r"_quantise|_transpose|amax",
    "optimiser": r"multi_tensor|adam|lerp",
    "copies": r"memcpy|memset|copy",
}
"""Kind -> what the names of its kernels hold; the first that fits counts."""
OTHERS, IDLE = "others", "between kernels"


class Span(NamedTuple):
    """A kernel's run."""

    name: str
    start: float
    end: float
    """Microseconds."""


def by_kind(spans: Iterable[Span], repeats: int = 1) -> dict[str, float]:
    """Milliseconds of each kind, most first, and when no kernel ran.

    Args:
        spans: All kernels of some work.
        repeats: How often the work was done; the figures are for once.
    """
    spans = sorted(spans, key=lambda span: span.start)
    found = dict.fromkeys([*KINDS, OTHERS], 0.0)
    idle, busy_until = 0.0, spans[0].start if spans else 0.0
    for name, start, end in spans:
        found[kind(name)] += end - start
        idle, busy_until = idle + max(0.0, start - busy_until), max(busy_until, end)
    most = sorted(found.items(), key=lambda item: -item[1])
    return {name: round(took / 1e3 / repeats, 3) for name, took in [*most, (IDLE, idle)] if took}


def kind(name: str) -> str:
    """What a kernel of that name does."""
    return next((kind for kind, holds in KINDS.items() if re.search(holds, name, re.IGNORECASE)), OTHERS)


def kernel_times(call: Callable[[], Any], repeats: int = 3) -> dict[str, float]:
    """As `by_kind`, of a call that was made before; nothing without a GPU."""
    if not torch.cuda.is_available():
        return {}
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
    return by_kind(_kernels(profiled), repeats)


def _kernels(profiled: profile) -> list[Span]:
    events = (event for event in profiled.events() or [] if event.device_type == DeviceType.CUDA)
    return [Span(event.name, event.time_range.start, event.time_range.end) for event in events]


class ProfilingMeter(Meter):
    """A meter that profiles the last of a training's steps, and does not count those.

    Args:
        count: Steps that are measured.
        profiled: Steps behind them.
        others: As `Meter` takes them.
    """

    def __init__(self, count: int, profiled: int, **others: Any):
        super().__init__(**others)
        self._last, self._profiled, self._rate = self._skip + count, profiled, 0.0
        self._profile = profile(activities=[ProfilerActivity.CUDA])
        self.kernels: dict[str, float] = {}
        """Milliseconds of a step; see `by_kind`."""

    @property
    def samples_per_second(self) -> float:
        """See `Meter`."""
        return self._rate or super().samples_per_second

    def step(self, samples: int) -> None:
        """See `Meter`."""
        super().step(samples)
        if self._device.type != "cuda":
            return
        if self._steps == self._last:
            self.wait()
            self._rate = super().samples_per_second
            self._profile.start()
        elif self._steps == self._last + self._profiled:
            self.wait()
            self._profile.stop()
            self.kernels = by_kind(_kernels(self._profile), self._profiled)
