"""Finiteness found late but by its step, and throughput."""

import pytest
import torch

from pipeline.training import Run, TrainingError, loop, train
from pipeline.training import meter as metering
from pipeline.training.meter import Meter
from pipeline.training.watch import Watch


class NotFiniteError(Exception):
    pass


def refuse(step, loss, norm):
    raise NotFiniteError(step, loss, norm)


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_the_first_bad_step_is_named_after_the_delay(delay, loss, norm):
    watch = Watch(refuse, delay)
    seen = []
    with pytest.raises(NotFiniteError) as caught:
        for step in range(10):
            seen.append(step)
            bad = step >= 4
            watch.add(step, torch.tensor(loss if bad else 1.0), torch.tensor(norm if bad else 1.0))
    assert caught.value.args[0] == 4 and seen[-1] == 4 + delay


def test_flush_reads_what_is_left():
    watch = Watch(refuse, 5)
    watch.add(0, torch.tensor(1.0), torch.tensor(1.0))
    watch.add(1, torch.tensor(float("-inf")), torch.tensor(2.0))
    with pytest.raises(NotFiniteError) as caught:
        watch.flush()
    assert caught.value.args == (1, float("-inf"), 2.0)
    watch.flush()


@pytest.mark.parametrize(("nan_at", "kept"), [(7, 5), (9, 5), (11, 10)])
def test_a_late_reader_keeps_no_spoilt_checkpoint(make_task, make_params, tmp_path, monkeypatch, nan_at, kept):
    """As on a GPU, which is some steps behind; checkpoints follow steps 4 and 9, nothing is logged between."""
    monkeypatch.setattr(loop, "Watch", lambda refuse, delay: Watch(refuse, 3))
    params = make_params(log_every=100)
    options = {"seed": 0, "folder": tmp_path, "identity": {}, "device": "cpu"}
    with pytest.raises(TrainingError, match=f"loss nan.*at step {nan_at}; kept the checkpoint of step {kept}"):
        train(make_task(nan_at=nan_at), params, Run(**options))
    whole, resumed = make_task(), make_task()
    train(whole, params, Run(**{**options, "folder": tmp_path / "whole"}))
    train(resumed, params, Run(**options))
    assert torch.equal(whole.model.first.weight, resumed.model.first.weight)


def test_throughput_leaves_out_the_first_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metering.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(metering, "peak_flops", lambda device: 1000.0)
    meter = Meter(flops_per_sample=4.0, processes=2, skip=2)
    for seconds in (100.0, 50.0, 2.0, 2.0):  # two that compile
        now[0] += seconds
        meter.step(20)
    assert meter.samples_per_second == pytest.approx(10.0)
    assert meter.mfu == pytest.approx(10 * 4 / 2000)
    assert meter.summary() == {"samples_s": "10", "mfu": "2%"}
    assert Meter(flops_per_sample=4.0).summary().keys() == {"samples_s"}  # a CPU has no known peak


def test_the_loop_counts_every_sample(make_task, make_params, tmp_path):
    meter = Meter(skip=4)
    train(make_task(), make_params(), Run(0, tmp_path, {}, "cpu"), meter)
    assert meter._samples == 8 * (12 - 4)


def test_known_gpus_have_their_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert metering.peak_flops(torch.device("cuda")) == 989.4e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert metering.peak_flops(torch.device("cuda")) == metering.peak_flops(torch.device("cpu")) == 0.0
