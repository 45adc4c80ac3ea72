"""InfoNCE against a hand-written numpy version, twins left out, and a batch split over processes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.diffcomp.losses import Negatives, info_nce, inverse_temperature


def units(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_hand(a, b, scale, labels):
    logits = scale * a @ b.T
    total = 0.0
    for row in range(len(a)):
        others = [column for column in range(len(a)) if column == row or labels[column] != labels[row]]
        total -= logits[row, row] - np.log(np.exp(logits[row, others]).sum())
    return total / len(a)


def test_equation_18_from_numbers():
    """Two pairs in the plane, scale 2: logits [[1.6, 1.2], [0, 2]] from the first side, one direction only."""
    composed = torch.tensor([[0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    first = -np.log(np.exp(1.6) / (np.exp(1.6) + np.exp(1.2)))
    second = -np.log(np.exp(2.0) / (np.exp(2.0) + np.exp(0.0)))
    assert info_nce(composed, images, 2.0).item() == pytest.approx((first + second) / 2, abs=1e-12)
    assert info_nce(images, composed, 2.0).item() != pytest.approx((first + second) / 2, abs=1e-3)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 2], [7, 7, 7, 7, 7]])
def test_info_nce_by_hand(labels):
    a, b = units(5, 8), units(5, 8, seed=1)
    expected = by_hand(a.double().numpy(), b.double().numpy(), 9.0, labels)
    assert info_nce(a, b, 9.0, torch.tensor(labels)).item() == pytest.approx(expected, abs=1e-5)


def test_distinct_labels_are_no_labels():
    a, b = units(5, 8), units(5, 8, seed=1)
    torch.testing.assert_close(info_nce(a, b, 9.0), info_nce(a, b, 9.0, torch.arange(5)))


def test_autocast_keeps_the_logits_whole():
    a, b = units(5, 8), units(5, 8, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = info_nce(a, b, 100.0)
    assert torch.equal(inside, info_nce(a, b, 100.0))


def test_temperature_is_bounded():
    assert inverse_temperature(torch.tensor(9.0)).item() == 100.0


PROCESS = """
import json, sys, warnings
import torch
import torch.distributed as dist
from pipeline.diffcomp.losses import info_nce

warnings.simplefilter("error", FutureWarning)
rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
a, b, labels = (torch.tensor(values)[3 * rank : 3 * rank + 3] for values in json.load(sys.stdin))
a.requires_grad_()
loss = info_nce(a, b, 9.0, labels)
loss.backward()
answer = json.dumps([loss.item(), (a.grad / 2).tolist()])  # the mean that data-parallel training takes
del loss
dist.barrier()  # neither goes while the other still talks to it
dist.destroy_process_group()
print(answer)
"""


def test_two_processes_make_one_batch(tmp_path):
    a, b, labels = units(6, 8), units(6, 8, seed=1), torch.tensor([0, 1, 2, 0, 3, 4])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "store")],
            cwd=Path(__file__).parents[2],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for process in processes:
        process.stdin.write(json.dumps([a.tolist(), b.tolist(), labels.tolist()]))
        process.stdin.close()
    said = [(process.stdout.read(), process.stderr.read()) for process in processes]
    assert [process.wait() for process in processes] == [0, 0], said
    outputs = [json.loads(out) for out, _ in said]

    loss = info_nce(a.requires_grad_(), b, 9.0, labels)
    loss.backward()
    for rank, (value, gradient) in enumerate(outputs):
        assert value == pytest.approx(loss.item(), abs=1e-6)
        torch.testing.assert_close(torch.tensor(gradient), a.grad[3 * rank : 3 * rank + 3], atol=1e-6, rtol=1e-4)


def test_further_negatives_never_have_the_own_label():
    queries, keys, extra = (units(n, 6, seed=n) for n in (4, 5, 3))
    keys, labels, extra_labels = keys[:4], torch.tensor([0, 1, 2, 3]), torch.tensor([7, 2, 8])
    logits, more = 9.0 * queries @ keys.T, 9.0 * queries @ extra.T
    total = 0.0
    for i in range(4):
        beside = [more[i, j] for j in range(3) if extra_labels[j] != labels[i]]
        total -= (logits[i, i] - torch.stack([*logits[i], *beside]).logsumexp(0)) / 4
    torch.testing.assert_close(info_nce(queries, keys, 9.0, labels, Negatives(extra, extra_labels)), total)
