"""`Recorded`, with stand-ins for CUDA graphs: recording computes nothing, a replay computes from what was copied in."""

import contextlib

import pytest
import torch
from torch import nn

from pipeline.training import graphed
from pipeline.training.graphed import Recorded


class Task:
    """The mean of w * x + b, times a factor that may be missing."""

    def __init__(self):
        self.calls = 0

    def loss_of(self, model, values, factor):
        self.calls += 1
        loss = model(values).mean() * (1.0 if factor is None else factor)
        return loss, {"double": 2 * loss.detach()}


@pytest.fixture
def recorded(monkeypatch):
    """A `Recorded` over a model, whose graphs are replayed by computing again into the first results."""
    model, task = nn.Linear(3, 2), Task()

    @contextlib.contextmanager
    def recording(graph, pool):
        before = [parameter.grad.clone() for parameter in model.parameters()]
        yield
        for parameter, gradient in zip(model.parameters(), before, strict=True):
            parameter.grad.copy_(gradient)

    class Graph:
        def replay(self):
            _, own, (loss, metrics) = next(found for found in runner._graphs.values() if found and found[0] is self)
            again, others = runner._compute(own)
            loss.copy_(again)
            for name, value in others.items():
                metrics[name].copy_(value)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    runner = Recorded(task, model, 0.25, contextlib.nullcontext)
    return runner


def test_every_micro_batch_counts_once_whether_run_recorded_or_replayed(recorded):
    model, expected = recorded._model, nn.Linear(3, 2)
    expected.load_state_dict(model.state_dict())
    inputs = [(torch.randn(4 + number % 2, 3), torch.rand(()) if number > 5 else None) for number in range(12)]
    for values, factor in inputs:
        loss, metrics = recorded((values, factor))
        plain = expected(values).mean() * (1.0 if factor is None else factor)
        (plain * 0.25).backward()
        torch.testing.assert_close(loss, plain.detach())
        torch.testing.assert_close(metrics["double"], 2 * plain.detach())
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert [found is not None for found in recorded._graphs.values()] == [
        False,
        False,
        True,
        True,
    ]  # new shapes need the memory
    assert recorded._task.calls == 12 + 4  # recording computes nothing on a GPU
    recorded(inputs[0])
    assert [found is not None for found in recorded._graphs.values()] == [True, False, True, True]


def test_what_was_returned_stays_when_the_next_replay_comes(recorded):
    results = [recorded((torch.full((2, 3), float(number)), None))[0] for number in range(4)]
    assert len({result.item() for result in results}) == 4


def test_gradients_are_averaged_over_processes(monkeypatch):
    class Done:
        def wait(self):
            pass

    def all_reduce(gradient, async_op):
        gradient.add_(1.0)  # what the other process has
        return Done()

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 5.0])
    graphed.average_gradients([parameter], 2)
    assert parameter.grad.tolist() == [2.0, 3.0]
