"""A run that was cut off and goes on equals one that never stopped, bit for bit."""

import json
import os
import shutil
import signal

import pytest
import torch
from torch import nn

from pipeline.artifacts import ArtifactError, save_weights
from pipeline.training import Run, train
from pipeline.training.checkpoint import Checkpoint, Ema, TrainingState
from pipeline.training.loop import log_csv


class CutOff(BaseException):
    """Stands for a killed process: nothing of the loop runs after it."""


def run(task, params, folder, stop_at=None, **options):
    """The log, or None where the run was cut off while step `stop_at` was computed."""
    if stop_at is not None:
        whole = task.loss

        def loss(*arguments):
            if len(task.asked) == stop_at:
                raise CutOff
            return whole(*arguments)

        task.loss = loss
    try:
        given = {"seed": 0, "folder": folder, "identity": {"a": (1, 2)}, "device": "cpu", **options}
        return train(task, params, Run(**given))
    except CutOff:
        return None


def state(task):
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.0},
        {"micro_batch_size": 2},
        {"schedule": "constant", "weight_decay": 0.0},
        {"precision": "bf16"},
    ],
)
@pytest.mark.parametrize("stop_at", [6, 10])
def test_resumed_equals_never_stopped(make_task, make_params, tmp_path, changes, stop_at):
    params = make_params(**changes)
    micro_batches = 4 if "micro_batch_size" in changes else 1
    whole = make_task()
    expected = run(whole, params, tmp_path / "whole")

    assert run(make_task(), params, tmp_path / "cut", stop_at=stop_at * micro_batches) is None
    resumed = make_task()
    log = run(resumed, params, tmp_path / "cut")
    assert len(resumed.asked) == (12 - stop_at // 5 * 5) * micro_batches
    assert log == expected and log_csv(log) == log_csv(expected)
    assert_same(state(resumed), state(whole))


def test_cut_off_again_and_again(make_task, make_params, tmp_path):
    params = make_params(checkpoint_every=2)
    whole = make_task()
    expected = run(whole, params, tmp_path / "whole")
    for _ in range(10):
        task = make_task()
        log = run(task, params, tmp_path / "cut", stop_at=3)
        if log is not None:
            break
    assert log == expected
    assert_same(state(task), state(whole))


def test_the_optimisers_moments_and_the_average_come_back(make_task, make_params, tmp_path):
    run(make_task(), make_params(), tmp_path, stop_at=7)
    task = make_task()
    trained = {name: parameter for name, parameter in task.model.named_parameters() if parameter.requires_grad}
    optimiser, ema = torch.optim.AdamW(trained.values()), Ema(trained, 0.9)
    checkpoint = Checkpoint(tmp_path / "checkpoint", {"seed": 0, "a": [1, 2]})
    state = TrainingState(task.model, trained, optimiser, ema)
    step, log = checkpoint.load(state)
    assert step == checkpoint.step == 5 and len(log) == 5 and ema.updates == 5
    moments = optimiser.state[task.model.first.weight]
    assert moments["step"] == 5 and moments["exp_avg"].abs().sum() > 0 and moments["exp_avg_sq"].abs().sum() > 0
    assert task.model.mean.abs().sum() > 0
    assert not torch.equal(ema.average["first.weight"], task.model.first.weight)
    before = {path.name: path.read_bytes() for path in checkpoint.folder.iterdir()}
    checkpoint.save(step, log, state)
    assert {path.name: path.read_bytes() for path in checkpoint.folder.iterdir()} == before


def test_the_checkpoint_stays_until_the_weights_are_saved(make_task, make_params, tmp_path):
    whole, again = make_task(), make_task()
    log = run(whole, make_params(), tmp_path / "model")
    assert (
        run(again, make_params(), tmp_path / "model") == log and len(again.asked) == 2
    )  # a kill before the stage had saved
    assert_same(state(again), state(whole))
    save_weights(tmp_path / "model", state(again), {})
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_a_kill_between_the_two_renames_of_a_checkpoint_loses_nothing(cut, make_task, make_params):
    os.replace(cut, cut.with_name(".checkpoint.old"))
    shutil.copytree(cut.with_name(".checkpoint.old"), cut.with_name(".checkpoint.partial"))
    task = make_task()
    resume(make_task, make_params, cut, task)
    assert len(task.asked) == 7


def test_sigterm_ends_a_training_behind_a_finished_step(make_task, make_params, tmp_path, capsys):
    whole, task = make_task(), make_task()
    log = run(whole, make_params(), tmp_path / "whole")
    loss = task.loss

    def terminated(*arguments):
        if len(task.asked) == 7:
            signal.raise_signal(signal.SIGTERM)
        return loss(*arguments)

    before = signal.getsignal(signal.SIGTERM)
    task.loss = terminated
    with pytest.raises(SystemExit) as ended:
        run(task, make_params(), tmp_path / "cut")
    assert ended.value.code == 128 + signal.SIGTERM and signal.getsignal(signal.SIGTERM) is before
    assert "stopped by SIGTERM after step 7" in capsys.readouterr().err
    resumed = make_task()
    assert run(resumed, make_params(), tmp_path / "cut") == log
    assert len(task.asked) == 8 and len(resumed.asked) == 4  # no step twice
    assert_same(state(resumed), state(whole))


@pytest.mark.parametrize("options", [{"identity": {"a": (1, 3)}}, {"seed": 1}])
def test_another_identity_or_seed_starts_anew(make_task, make_params, tmp_path, options):
    run(make_task(), make_params(), tmp_path / "cut", stop_at=7)
    task, fresh = make_task(), make_task()
    run(task, make_params(), tmp_path / "cut", **options)
    run(fresh, make_params(), tmp_path / "whole", **options)
    assert len(task.asked) == 12
    assert_same(state(task), state(fresh))


@pytest.fixture
def cut(make_task, make_params, tmp_path):
    """The checkpoint of a run cut off after step 5."""
    run(make_task(), make_params(), tmp_path, stop_at=7)
    return tmp_path / "checkpoint"


def resume(make_task, make_params, cut, task=None):
    return run(task or make_task(), make_params(), cut.parent)


def test_damaged_tensors_are_named(make_task, make_params, cut):
    path = cut / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="state.safetensors: does not match the SHA-256"):
        resume(make_task, make_params, cut)
    path.unlink()
    with pytest.raises(ArtifactError, match="state.safetensors: does not match the SHA-256"):
        resume(make_task, make_params, cut)


@pytest.mark.parametrize("content", ['{"step": 5', "[]", "{}", "3"])
def test_a_damaged_state_is_named(make_task, make_params, cut, content):
    (cut / "state.json").write_text(content)
    with pytest.raises(ArtifactError, match="checkpoint"):
        resume(make_task, make_params, cut)


def test_a_flipped_digit_in_the_state_is_found(make_task, make_params, cut):
    path = cut / "state.json"
    text = path.read_text()
    assert '"step": 5' in text
    path.write_text(text.replace('"step": 5', '"step": 6'))
    with pytest.raises(ArtifactError, match="state.json: does not match its own SHA-256"):
        resume(make_task, make_params, cut)


def test_a_checkpoint_of_another_model_is_named(make_task, make_params, cut):
    wider = make_task()
    wider.model.second = nn.Linear(8, 2)
    with pytest.raises(
        ArtifactError, match=r"does not fit the model.*second.weight is \(1, 8\), the model wants \(2, 8\)"
    ):
        resume(make_task, make_params, cut, wider)
    deeper = make_task()
    deeper.model.third = nn.Linear(1, 1)
    with pytest.raises(ArtifactError, match="does not fit the model.*third.weight"):
        resume(make_task, make_params, cut, deeper)


def test_a_checkpoint_holds_no_time_and_no_place(cut):
    content = json.loads((cut / "state.json").read_text())
    assert content.keys() == {"step", "log", "identity", "ema_updates", "sha256", "own_sha256"}
    assert str(cut.parent) not in (cut / "state.json").read_text()
