"""bench/kernels.py against sums by hand."""

from __future__ import annotations

import torch

from bench.kernels import ProfilingMeter, Span, by_kind, kernel_times, kind


def test_kernels_are_told_apart_by_their_names():
    assert kind("nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_NNT") == "products"
    assert kind("_attend_backward") == kind("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma") == "attention"
    assert kind("_gate_norm_backward") == "norms, gates, GELU" and kind("Memcpy DtoD (Device -> Device)") == "copies"
    assert kind("void at::native::vectorized_elementwise_kernel<4>") == "others"


def test_overlapping_kernels_leave_no_time_between_them():
    """Two steps: products 2 + 4 ms, of which one overlaps attention of 3 ms, and 1 ms without any kernel."""
    spans = [Span("gemm", 0, 2000), Span("_attend", 3000, 6000), Span("gemm", 5000, 9000)]
    assert by_kind(spans, repeats=2) == {"products": 3.0, "attention": 1.5, "between kernels": 0.5}
    assert by_kind([]) == {}


def test_without_a_gpu_nothing_is_profiled(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kernel_times(lambda: None) == {}
    meter = ProfilingMeter(2, 1, skip=1)
    for _ in range(4):
        meter.step(8)
    assert meter.kernels == {} and meter.samples_per_second > 0
