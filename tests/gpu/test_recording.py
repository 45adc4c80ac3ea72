"""Functions as graphs, with a stand-in for the graphs (`tests/gpu/tape.py`)."""

import logging

import pytest
import torch

from pipeline.config import Speed
from pipeline.gpu import accelerate
from pipeline.gpu.recording import Recorded, record
from tests.gpu.tape import tapes  # noqa: F401  (a fixture)
from tests.gpu.test_fast_sampling import make_queries


def add(first, second):
    found = first.clone()
    found += 1.0
    return found if second is None else found[:, None] + second


def test_a_replay_takes_the_new_values_and_returns_a_copy(tapes):  # noqa: F811
    recorded = Recorded(add)
    one = recorded(torch.zeros(2), torch.ones(2, 3))
    two = recorded(torch.full((2,), 5.0), torch.ones(1, 1).expand(2, 3))
    assert torch.equal(one, torch.full((2, 3), 2.0)) and torch.equal(two, torch.full((2, 3), 7.0))
    assert [tape.replays for tape in tapes] == [2]


def test_each_shape_is_recorded_once(tapes):  # noqa: F811
    recorded = Recorded(add)
    for _ in range(2):
        for inputs in ((torch.zeros(2), None), (torch.zeros(3), None), (torch.zeros(2), torch.zeros(2, 1))):
            assert torch.equal(recorded(*inputs), add(*inputs))
    assert [tape.replays for tape in tapes] == [2, 2, 2]


def test_what_cannot_be_recorded_is_called(tapes, caplog):  # noqa: F811
    recorded = Recorded(lambda value: value * value.max().item())
    with caplog.at_level(logging.WARNING):
        found = [recorded(torch.tensor([1.0, high])) for high in (2.0, 3.0)]
    assert [one.tolist() for one in found] == [[2.0, 4.0], [3.0, 9.0]]
    assert len(tapes) == 1 and tapes[0].replays == 0
    assert [row.message[:37] for row in caplog.records] == ["not recorded as a CUDA graph, so slow"]


def test_a_recorded_module_keeps_its_parts(tapes):  # noqa: F811
    module = torch.nn.Linear(3, 2)
    plain = module(torch.ones(4, 3))
    record(module)
    with torch.no_grad():
        torch.testing.assert_close(module(torch.ones(4, 3)), plain)
    assert sorted(module.state_dict()) == ["bias", "weight"] and len(tapes) == 1


@pytest.mark.parametrize("rows", [1, 3])
def test_a_recorded_solver_samples_as_the_plain_one(make_sampler, sizes, tapes, rows):  # noqa: F811
    """The sampler's way to a graph, of which `FixedSizes` makes one a shape."""
    quick = accelerate(make_sampler(4, guidance_scale=1.5), Speed(cuda_graph=True))
    quick._recorded._pool = object()  # as on a GPU
    for longest in (5, 9, 5):
        names, queries = list("abc")[:rows], make_queries(sizes, rows, longest)
        plain = make_sampler(4, guidance_scale=1.5).sample(names, *queries, seed=2)
        torch.testing.assert_close(quick.sample(names, *queries, seed=2), plain, atol=1e-5, rtol=1e-5)
    assert sum(tape.replays for tape in tapes) == 3
