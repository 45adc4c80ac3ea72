"""How fast a training runs: samples a second and the share of the hardware's peak that they use."""

from __future__ import annotations

import time

import torch

PEAK_TFLOPS = {
    "H100": 989.4,
    "H200": 989.4,
    "GH200": 989.4,
    "H800": 989.4,
    "B200": 2250.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
}
"""Dense bfloat16 products without sparsity, by the makers' data sheets (SXM forms)."""


def peak_flops(device: torch.device) -> float:
    """Peak bfloat16 operations a second of a device; 0 where it is not known."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return max((tflops for key, tflops in PEAK_TFLOPS.items() if key in name), default=0.0) * 1e12


class Meter:
    """Throughput over all processes.

    What is measured goes to the console and never into an artifact, which must not differ between two runs.

    Args:
        flops_per_sample: Floating-point operations that the model's arithmetic needs for one sample, forward and
            backward; 0 when it is not known.
        device: What is waited for.
        processes: That train together.
        skip: The first steps, which compile and allocate, do not count.
    """

    def __init__(
        self, flops_per_sample: float = 0.0, device: torch.device | None = None, processes: int = 1, skip: int = 3
    ):
        self.flops_per_sample = flops_per_sample
        self._device = device or torch.device("cpu")
        self._peak = peak_flops(self._device) * processes
        self._skip, self._steps, self._samples, self._began = skip, 0, 0, time.perf_counter()

    def step(self, samples: int) -> None:
        """One more optimiser step over `samples` of all processes was queued."""
        self._steps += 1
        if self._steps == self._skip:
            self.wait()
            self._samples, self._began = 0, time.perf_counter()
        else:
            self._samples += samples

    def wait(self) -> None:
        """Wait for what is queued on a GPU."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    @property
    def samples_per_second(self) -> float:
        """Of all processes, behind the steps that do not count."""
        return self._samples / max(1e-9, time.perf_counter() - self._began)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation, 0 to 1; 0 where the peak or the model's operations are not known."""
        return self.samples_per_second * self.flops_per_sample / self._peak if self._peak else 0.0

    def summary(self) -> dict[str, str]:
        """What the progress bar shows."""
        shown = {"samples_s": f"{self.samples_per_second:.0f}"}
        return shown | ({"mfu": f"{100 * self.mfu:.0f}%"} if self.mfu else {})
