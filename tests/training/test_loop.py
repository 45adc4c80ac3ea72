"""The loop's arithmetic: order of the data, schedule, accumulation, moving average, refusal to go on."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.config import OptimiserParams, ParameterError
from pipeline.training import Run, TrainingError, train
from pipeline.training.checkpoint import Ema
from pipeline.training.loop import batch_indices, derived_seed, learning_rate, log_csv
from tests.sections import section


def run(task, params, folder, **options):
    return train(task, params, Run(**{"seed": 0, "folder": folder, "identity": {"a": 1}, "device": "cpu", **options}))


@given(examples=st.integers(1, 40), batch=st.integers(1, 60), seed=st.integers(0, 5))
def test_every_epoch_is_a_permutation(examples, batch, seed):
    steps = math.ceil(3 * examples / batch)
    order = torch.cat([batch_indices(examples, batch, step, seed) for step in range(steps)])
    assert len(order) == steps * batch
    for epoch in order.split(examples)[:3]:
        assert epoch.sort().values.tolist() == list(range(examples))


def test_epochs_and_seeds_differ_and_a_step_does_not_depend_on_those_before():
    first, second = batch_indices(50, 50, 0, 0), batch_indices(50, 50, 1, 0)
    assert not torch.equal(first, second) and not torch.equal(first, batch_indices(50, 50, 0, 1))
    assert torch.equal(batch_indices(50, 50, 1, 0), second)


def test_derived_seeds_are_stable():
    assert derived_seed(0, "epoch", 1) == derived_seed("0/epoch", 1) == 123735704575244949
    assert len({derived_seed(0, "step", step) for step in range(1000)}) == 1000


def test_the_loop_asks_for_each_example_once_an_epoch(make_task, make_params, tmp_path):
    task = make_task(examples=24)
    run(task, make_params(steps=6, batch_size=8), tmp_path)
    assert torch.cat(task.asked).view(2, 24).sort(1).values.tolist() == [list(range(24))] * 2


def test_learning_rate_by_hand():
    cosine = section(OptimiserParams, lr=2.0, warmup_steps=4, steps=12)
    assert [learning_rate(cosine, step) for step in (0, 1, 3, 4)] == [0.5, 1.0, 2.0, 2.0]
    assert learning_rate(cosine, 6) == pytest.approx(1 + math.cos(math.pi / 4))
    assert learning_rate(cosine, 8) == pytest.approx(1.0)
    assert learning_rate(cosine, 12) == pytest.approx(0.0)
    constant = section(OptimiserParams, lr=2.0, warmup_steps=2, schedule="constant", steps=5)
    assert [learning_rate(constant, step) for step in range(5)] == [1.0, 2.0, 2.0, 2.0, 2.0]


def test_the_log_says_what_was_used(make_task, make_params, tmp_path):
    params = make_params(log_every=5)
    log = run(make_task(), params, tmp_path)
    assert [row["step"] for row in log] == [0, 5, 10, 11]
    assert all(
        row["lr"] == learning_rate(params, row["step"]) and row["mse"] == pytest.approx(row["loss"]) for row in log
    )
    header, first = log_csv(log).splitlines()[:2]
    assert header == "step,loss,lr,gradient_norm,mse" and first.startswith("0,")


def test_accumulated_micro_batches_equal_the_full_batch(make_task, make_params, tmp_path):
    weights = []
    for micro in (0, 4, 1):
        task = make_task(noise=0.0)
        task.model.momentum = 0.0  # a running mean sees micro-batches
        log = run(task, make_params(batch_size=8, micro_batch_size=micro), tmp_path / str(micro))
        weights.append(
            (nn.utils.parameters_to_vector(task.model.parameters()), torch.tensor([row["loss"] for row in log]))
        )
    for accumulated, losses in weights[1:]:
        torch.testing.assert_close(accumulated, weights[0][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(losses, weights[0][1], atol=1e-5, rtol=1e-4)


def test_one_step_is_adamw_by_hand(make_task, make_params, tmp_path):
    """First step of AdamW: every weight moves by lr against its gradient's sign, matrices decay as well."""
    task = make_task(noise=0.0)
    before = {name: parameter.detach().clone() for name, parameter in task.model.named_parameters()}
    run(task, make_params(steps=1, warmup_steps=0, ema_decay=0.0, clip_norm=1e9, schedule="constant"), tmp_path)
    after = dict(task.model.named_parameters())
    for name, decay in (("second.weight", 0.1), ("second.bias", 0.0)):
        moved = after[name].detach() - before[name] * (1 - 1e-2 * decay)
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, 1e-2), atol=1e-5, rtol=0)
    assert torch.equal(after["unused"], before["unused"]) and torch.equal(after["frozen"], before["frozen"])


def test_clipping_bounds_the_step(make_task, make_params, tmp_path):
    log = run(make_task(), make_params(clip_norm=1e-3), tmp_path)
    assert all(row["gradient_norm"] > 1e-3 for row in log)  # the log holds the norm before clipping


def test_moving_average_by_hand():
    parameter = nn.Parameter(torch.tensor([1.0, 0.0]))
    ema = Ema({"weight": parameter}, decay=0.5)
    expected = torch.tensor([1.0, 0.0])
    for step, value in enumerate(([3.0, 1.0], [5.0, -1.0], [0.0, 2.0]), start=1):
        parameter.data = torch.tensor(value)
        ema.update({"weight": parameter})
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * parameter.data
    torch.testing.assert_close(ema.average["weight"], expected)
    ema.copy_to({"weight": parameter})
    torch.testing.assert_close(parameter.data, expected)


def test_the_average_is_what_training_leaves(make_task, make_params, tmp_path):
    plain, averaged = make_task(), make_task()
    run(plain, make_params(ema_decay=0.0), tmp_path / "plain")
    run(averaged, make_params(ema_decay=0.9), tmp_path / "averaged")
    assert not torch.equal(plain.model.first.weight, averaged.model.first.weight)


def test_the_same_seed_gives_the_same_bits(make_task, make_params, tmp_path):
    logs, weights = [], []
    for number, seed in enumerate((0, 0, 1)):
        task = make_task()
        logs.append(run(task, make_params(), tmp_path / str(number), seed=seed))
        weights.append(task.model.first.weight.detach().clone())
    assert logs[0] == logs[1] and torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("nan_at, kept", [(7, "the checkpoint of step 5"), (2, "nothing")])
def test_a_loss_that_is_not_finite_stops_naming_the_step(make_task, make_params, tmp_path, nan_at, kept):
    with pytest.raises(TrainingError, match=f"loss nan.*at step {nan_at}; kept {kept}"):
        run(make_task(nan_at=nan_at), make_params(), tmp_path)
    assert (tmp_path / "checkpoint").exists() == (nan_at > 5)


def test_after_a_nan_training_goes_on_from_the_last_good_checkpoint(make_task, make_params, tmp_path):
    with pytest.raises(TrainingError):
        run(make_task(nan_at=7), make_params(), tmp_path / "broken")
    task, undisturbed = make_task(), make_task()
    log = run(task, make_params(), tmp_path / "broken")
    assert len(task.asked) == 7  # steps 5 to 11
    assert log == run(undisturbed, make_params(), tmp_path / "whole")
    assert torch.equal(task.model.first.weight, undisturbed.model.first.weight)


def test_batches_that_do_not_divide_are_refused_with_their_numbers(make_task, make_params, tmp_path):
    with pytest.raises(TrainingError, match="8, is not a multiple of micro_batch_size 3"):
        run(make_task(), make_params(micro_batch_size=3), tmp_path)


def test_nothing_to_train_is_said(make_task, make_params, tmp_path):
    with pytest.raises(TrainingError, match="0 examples"):
        run(make_task(examples=0), make_params(), tmp_path)
    task = make_task()
    task.model.requires_grad_(False)
    with pytest.raises(TrainingError, match="0 trainable"):
        run(task, make_params(), tmp_path)


def test_one_process_trains_in_several_precisions(make_task, make_params, tmp_path):
    tasks = [make_task() for _ in range(3)]
    for task, precision in zip(tasks, ("fp32", "bf16", "fp32"), strict=True):
        run(task, make_params(precision=precision), tmp_path)
    first, rounded, again = (task.model.first.weight for task in tasks)
    assert torch.equal(first, again) and not torch.equal(first, rounded)
    torch.testing.assert_close(first, rounded, atol=0.05, rtol=0.1)


def test_it_learns(make_task, make_params, tmp_path):
    log = run(make_task(), make_params(steps=150), tmp_path)
    assert log[-1]["loss"] < 0.2 * log[0]["loss"]


def test_unknown_choices_are_refused():
    with pytest.raises(ParameterError, match="schedule: 'linear'"):
        section(OptimiserParams, schedule="linear")
    with pytest.raises(ParameterError, match="precision: 'fp16'"):
        section(OptimiserParams, precision="fp16")
    with pytest.raises(ParameterError, match="steps: 0 is not at least 1"):
        section(OptimiserParams, steps=0)
