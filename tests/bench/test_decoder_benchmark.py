import torch

from bench.decoder import measure
from tests.sections import profile


def test_all_three_are_timed():
    found = measure(profile("smoke"), torch.device("cpu"), batch=2, repeats=1)
    assert found["decode_one_s"] > 0 and found["decode_batch_s"] > 0 and found["training_step_s"] > 0
    assert found["solver_steps"] == 2 and found["profile"] == "smoke" and found["cuda_graph"] is False
