"""The student: what it begins as, what it learns, and how it is sampled."""

import copy

import pytest
import torch

from pipeline.artifacts import ArtifactError
from pipeline.artifacts.model_files import skip_model
from pipeline.config import OptimiserParams, Speed
from pipeline.distill import (
    DistillTask,
    Limits,
    Scales,
    Student,
    StudentSampler,
    StudentSettings,
    Teacher,
)
from pipeline.distill.checkpoints import load_student, save_student
from pipeline.fusion_diff import ControlledPrior, Sampler, SamplerSettings, TextConditions
from pipeline.fusion_diff.sampler import query_noise
from pipeline.gpu import accelerate
from pipeline.training import Run, train
from tests.sections import section

IDS = [str(number) for number in range(5)]


def scales(rows, guidance, control):
    return Scales(torch.full((rows,), guidance), torch.full((rows,), control))


def make_task(prior, adapter, diffusion, jumps, rows=6):
    torch.manual_seed(1)
    texts = TextConditions.from_list([torch.randn(1 + row % 4, prior.sizes.text_dim) for row in range(rows)])
    control = torch.nn.functional.normalize(torch.randn(rows, prior.sizes.dim), dim=1)
    student = Student.of(prior, adapter, Limits(4.0, 1.0))
    teacher = Teacher(copy.deepcopy(prior), copy.deepcopy(adapter), diffusion, 14)
    return DistillTask(student, teacher, jumps, control, texts)


def test_it_begins_as_the_teachers_conditional_prediction(prior, adapter, inputs):
    noisy, step, states, mask, control = inputs
    expected = ControlledPrior(copy.deepcopy(prior), adapter, 0.5)(noisy, step, states, mask, control)
    student = Student.of(prior, adapter, Limits(4.0, 1.0)).eval()
    found = student(noisy, torch.stack([step, step // 2]), (states, mask), control, scales(5, 3.0, 0.5))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_it_sees_end_and_scales(student, inputs):
    noisy, step, states, mask, control = inputs

    def said(end=0, guidance=1.0, delta=1.0):
        ends = torch.full_like(step, end)
        return student(noisy, torch.stack([step, ends]), (states, mask), control, scales(5, guidance, delta))

    base = said()
    assert all((base - other).abs().max() > 1e-3 for other in (said(end=400), said(guidance=2.0), said(delta=0.5)))


def test_the_teacher_walks_as_the_sampler(prior, adapter, diffusion, inputs):
    """Row by row with its own scales."""
    _, _, states, mask, control = inputs
    guidance, delta = torch.tensor([0.0, 1.0, 2.5, 4.0, 3.0]), torch.tensor([1.0, 0.5, 1.0, 0.2, 0.7])
    noise, given = query_noise(IDS, 1, diffusion.dim, 0)[:, 0], Scales(guidance, delta)
    teacher = Teacher(prior, adapter, diffusion, 6)
    walked = teacher.trajectory(noise, (states, mask), control * diffusion.scale, given)
    assert len(walked) == 7 and torch.equal(walked[0], noise)
    for row, name in enumerate(IDS):
        settings = SamplerSettings(6, float(guidance[row]), float(delta[row]))
        one = slice(row, row + 1)
        expected = Sampler(prior, adapter, diffusion, settings).sample([name], (states[one], mask[one]), control[one])
        found = torch.nn.functional.normalize(walked[-1][one], dim=1)
        torch.testing.assert_close(found, expected[:, 0], atol=1e-4, rtol=1e-3)


def test_no_loss_for_a_student_that_knows_the_trajectory(prior, adapter, diffusion, jumps):
    """And the loss of one that says nothing: the squared length of x relative to itself."""
    task = make_task(prior, adapter, diffusion, jumps)
    walked, calls = [], iter(task.pairs)
    trajectory = task.teacher.trajectory
    task.teacher.trajectory = lambda *given: walked.extend(trajectory(*given)) or walked

    def knowing(noisy, jump, text, control, given):
        start, end = next(calls)
        mean = jumps.mean(walked[start], walked[end], start, end)
        if jumps.params.prediction == "sample":
            return mean
        return (jumps.points.alpha[start] * noisy - mean) / jumps.points.sigma[start]

    loss, parts = task.loss(knowing, torch.arange(4), torch.Generator().manual_seed(0), "cpu")
    assert float(loss) < 1e-6 and set(parts) == {"mse_0_7", "mse_0_14", "mse_7_14"}


def test_a_student_learns(prior, adapter, diffusion, jumps, tmp_path):
    task = make_task(prior, adapter, diffusion, jumps)
    params = section(OptimiserParams, steps=40, batch_size=6, lr=2e-3, log_every=39)
    log = train(task, params, Run(0, tmp_path / "student", {}, "cpu"))
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]
    assert all(
        torch.equal(a, b) for a, b in zip(task.teacher.model.prior.parameters(), prior.parameters(), strict=True)
    )


def test_a_killed_training_goes_on_as_if_it_had_not_been(prior, adapter, diffusion, jumps, tmp_path):
    params = section(OptimiserParams, steps=4, batch_size=3, checkpoint_every=2, schedule="constant")
    whole = make_task(prior, adapter, diffusion, jumps)
    train(whole, params, Run(0, tmp_path / "whole", {}, "cpu"))
    first = make_task(prior, adapter, diffusion, jumps)
    original, calls = first.loss, []

    def killed(*given):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return original(*given)

    first.loss = killed
    with pytest.raises(KeyboardInterrupt):
        train(first, params, Run(0, tmp_path / "cut", {}, "cpu"))
    second = make_task(prior, adapter, diffusion, jumps)
    train(second, params, Run(0, tmp_path / "cut", {}, "cpu"))
    for name, value in whole.student.state_dict().items():
        assert torch.equal(value, second.student.state_dict()[name]), name


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("controlled", [True, False])
@pytest.mark.parametrize("quick", [False, True])
def test_the_sampler_makes_the_jumps(student, jumps, inputs, passes, controlled, quick):
    """By the student's own forward pass; the quick sampler likewise."""
    _, _, states, mask, control = inputs
    settings = StudentSettings(passes, 2.5, 0.5, 0.7)
    sampler = StudentSampler(student, jumps, settings, controlled)
    if quick:
        sampler = accelerate(sampler, Speed(cuda_graph=True))
    sample = 0.7 * query_noise(IDS, 1, jumps.dim, 3)[:, 0]
    for start, end in jumps.pairs(passes):
        points = jumps.points.timesteps[[start, end]][:, None].expand(2, 5)
        given = scales(5, 2.5, 0.5 if controlled else 0.0)
        with torch.no_grad():
            said = student(sample, points, (states, mask), control * jumps.scale, given)
        sample = jumps.jump(sample, jumps.clean(said, sample, start), start, end)
    found = sampler.sample(IDS, (states, mask), control, seed=3)[:, 0]
    torch.testing.assert_close(found, torch.nn.functional.normalize(sample, dim=1), atol=1e-4, rtol=1e-3)
    assert sampler.takes_control == controlled


@pytest.mark.parametrize("quick", [False, True])
def test_other_scales(student, jumps, inputs, quick):
    _, _, states, mask, control = inputs
    sampler = StudentSampler(student, jumps, StudentSettings(2, 2.5))
    sampler = accelerate(sampler, Speed(cuda_graph=True)) if quick else sampler
    assert sampler.scaled(2.5, 1.0) is sampler
    expected = StudentSampler(student, jumps, StudentSettings(2, 1.0, 0.5)).sample(IDS, (states, mask), control)
    assert torch.equal(sampler.scaled(1.0, 0.5).sample(IDS, (states, mask), control), expected)
    with pytest.raises(ValueError, match=r"guidance_scale 4\.5 is above 4, the largest that it learned"):
        sampler.scaled(4.5)
    with pytest.raises(ValueError, match="no distilled sampler"):
        sampler.sample(IDS, (states, mask), control, negative=(states, mask))


def test_weights_come_back(student, jumps, tmp_path):
    save_student(tmp_path / "student", student, jumps, {"embedder": "mine"})
    found, process = load_student(tmp_path / "student", embedder="mine")
    assert found.limits == student.limits and process.teacher_steps == 14 and process.params == jumps.params
    for name, value in student.state_dict().items():
        assert torch.equal(value, found.state_dict()[name])
    with pytest.raises(ArtifactError, match="embedder"):
        load_student(tmp_path / "student", embedder="another")
    (tmp_path / "student" / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"config\.json: 'sizes' is missing"):
        load_student(tmp_path / "student")


def test_no_student(tmp_path):
    skip_model(tmp_path / "student", "distill.enabled is false")
    with pytest.raises(ArtifactError, match=r"there is no student: distill\.enabled is false"):
        load_student(tmp_path / "student")


def test_what_does_not_go_together(prior, adapter, diffusion, jumps):
    task = make_task(prior, adapter, diffusion, jumps)
    with pytest.raises(ValueError, match="6 texts for 2 rows"):
        DistillTask(task.student, task.teacher, jumps, torch.randn(2, prior.sizes.dim), task.text)
