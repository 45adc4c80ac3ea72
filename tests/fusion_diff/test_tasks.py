import pytest
import torch
import torch.nn.functional as F

from pipeline.fusion_diff import (
    ControlAdapter,
    ControlledPrior,
    ControlTask,
    EncodedConditions,
    Prior,
    PriorTask,
    TextConditions,
    tasks,
)
from pipeline.fusion_diff.tasks import drop_texts, room_for_dropped

N = 12


@pytest.fixture
def texts(sizes):
    return TextConditions.from_list([torch.randn(1 + i % 5, sizes.text_dim) for i in range(N)])


@pytest.fixture
def vectors(sizes):
    return F.normalize(torch.randn(N, sizes.dim), dim=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["prior", "control"])
def task(request, prior, adapter, diffusion, vectors, texts):
    if request.param == "prior":
        return PriorTask(prior, diffusion, vectors, texts, p_cfg=0.3)
    return ControlTask(ControlledPrior(prior, adapter), diffusion, vectors, vectors.flip(0), texts, p_cfg=0.3)


def test_the_loss_depends_on_the_generator_alone(task):
    indices = torch.arange(8)
    losses = [task.loss(task.model, indices, generator(seed), "cpu")[0].item() for seed in (1, 1, 2)]
    torch.manual_seed(99)
    assert task.loss(task.model, indices, generator(1), "cpu")[0].item() == losses[0] == losses[1] != losses[2]
    assert len(task) == N


def test_only_trained_parameters_get_gradients(task):
    loss, metrics = task.loss(task.model.train(), torch.arange(8), generator(), "cpu")
    loss.backward()
    for parameter in task.model.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad
    assert metrics["mse"].item() == loss.item() and not metrics["mse"].requires_grad


def test_equation_3_by_hand(prior, diffusion, vectors, texts):
    task = PriorTask(prior, diffusion, vectors, texts, p_cfg=0.4)
    indices = torch.tensor([5, 1, 7, 7, 0, 2])
    loss, _ = task.loss(prior, indices, generator(4), "cpu")
    same = generator(4)
    dropped = torch.rand(6, generator=same) < 0.4
    order = torch.cat([indices[dropped], indices[~dropped]])
    step, noise = diffusion.draw(6, same)
    assert 0 < dropped.sum() < 6
    errors = []
    for row, index in enumerate(order):
        states = texts.batch(index[None])[0] if row >= dropped.sum() else prior.null_text[None]
        noisy = diffusion.noise(vectors[index][None], step[row : row + 1], noise[row : row + 1])
        errors.append((prior(noisy, step[row : row + 1], states) - noise[row]).square().mean())
    assert loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def loss_of(task, indices, seed, fixed_shapes=False):
    """The loss, of batches whose shapes differ or do not."""
    return task.loss_of(task.model, *task.inputs(indices, generator(seed), "cpu", fixed_shapes))[0]


def gradients(task, indices, seed, fixed_shapes=False):
    """Of every trained parameter, by name."""
    task.model.train().zero_grad(set_to_none=True)
    loss_of(task, indices, seed, fixed_shapes).backward()
    return {name: parameter.grad for name, parameter in task.model.named_parameters() if parameter.requires_grad}


def test_one_recording_serves_every_number_of_dropped_texts(task):
    """What a graph is recorded for are the shapes of a micro-batch's inputs."""
    indices, dropped, shapes = torch.arange(10), set(), set()
    task.p_cfg = 0.4
    for seed in (0, 1, 2, 3, 4, 10):
        dropped.add(10 - len(drop_texts(indices, 0.4, generator(seed))[1]))
        shapes.add(tuple(part.shape for part in task.inputs(indices, generator(seed), "cpu", fixed_shapes=True)))
    assert len(dropped) > 2 and len(shapes) == 1


@pytest.mark.parametrize("whole_texts", [True, False])
def test_fixed_shapes_change_nothing_but_shapes(task, whole_texts, sizes, monkeypatch):
    if whole_texts:  # then a GPU gets no mask
        monkeypatch.setattr(tasks, "TEXT_MULTIPLE", 5)
        task.text = TextConditions.from_list([torch.randn(5, sizes.text_dim) for _ in range(N)])
    task.p_cfg = 0.4
    for seed in range(8):
        indices = torch.arange(N)[seed % 3 :]
        losses = [loss_of(task, indices, seed, fixed) for fixed in (False, True)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
        expected, found = (gradients(task, indices, seed, fixed) for fixed in (False, True))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_no_text_or_all_texts_dropped_with_fixed_shapes(prior, diffusion, vectors, texts):
    for p_cfg in (0.0, 1.0):
        task = PriorTask(prior, diffusion, vectors, texts, p_cfg)
        losses = [loss_of(task, torch.arange(5), 0, fixed) for fixed in (False, True)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def test_room_for_dropped_texts_is_the_same_for_all_batches():
    assert {room_for_dropped(128, 0.1, dropped) for dropped in range(33)} == {32}
    assert room_for_dropped(128, 0.1, 33) == 40 and room_for_dropped(64, 0.1, 0) == 24
    assert room_for_dropped(4, 0.1, 1) == 4 and room_for_dropped(10, 1.0, 10) == 10
    torch.manual_seed(0)
    dropped = (torch.rand(20_000, 128) < 0.1).sum(dim=1)
    assert dropped.max() <= 32


def test_wrong_dropped_rows_are_refused(prior, inputs):
    noisy, step, states, mask, _ = inputs
    for texts, dropped in ((states[1:], torch.ones(2)), (states, torch.ones(6)), (states, torch.ones(0))):
        with pytest.raises(ValueError, match="each row needs one"):
            prior(noisy, step, texts, None, dropped.bool())


class LengthEncoder:
    """Stands for a text encoder: as many tokens as words."""

    def __init__(self, dim):
        self.dim, self.asked = dim, []

    def pack(self, texts):
        self.asked.append(list(texts))
        states = [torch.full((len(text.split()), self.dim), float(len(text))) for text in texts]
        return torch.cat(states), [len(one) for one in states]


def test_texts_encoded_when_asked_for_are_those_of_the_shards(prior, diffusion, vectors, sizes):
    words = ["a " * (1 + row % 5) for row in range(N)]
    encoder = LengthEncoder(sizes.text_dim)
    states, lengths = LengthEncoder(sizes.text_dim).pack(words)
    stored = TextConditions.from_list(states.split(lengths))
    encoded = EncodedConditions(words, encoder, sizes.text_dim, sizes.text_tokens)
    assert len(encoded) == N and encoded.mean_tokens == sizes.text_tokens
    losses = [
        PriorTask(prior, diffusion, vectors, text, 0.4).loss(prior, torch.tensor([5, 1, 7, 0]), generator(2), "cpu")[0]
        for text in (stored, encoded)
    ]
    assert torch.equal(*losses)
    assert len(encoder.asked) == 1 and set(encoder.asked[0]) <= {
        words[row] for row in (5, 1, 7, 0)
    }  # none of the dropped
    states, mask = encoded.batch(torch.empty(0, dtype=torch.int64))
    assert states.shape == (0, 0, sizes.text_dim) and mask.shape == (0, 0)


def test_an_encoder_that_strays_is_named(sizes):
    wide = EncodedConditions(["a"] * 9, LengthEncoder(sizes.text_dim + 1), sizes.text_dim, sizes.text_tokens)
    with pytest.raises(ValueError, match="row 7 was not encoded as tokens of dimension 12"):
        wide.batch(torch.tensor([7]))
    encoder = LengthEncoder(sizes.text_dim)
    encoder.pack = lambda texts: (torch.full((len(texts), sizes.text_dim), float("nan")), [1] * len(texts))
    with pytest.raises(ValueError, match=r"\(text 7\) has a number that is not finite"):
        EncodedConditions(["a"] * 9, encoder, sizes.text_dim, sizes.text_tokens).batch(torch.tensor([7]))


def test_texts_are_dropped_at_the_given_rate():
    indices = torch.arange(5000)
    order, kept = drop_texts(indices, 0.1, generator())
    assert abs(1 - len(kept) / 5000 - 0.1) < 0.02
    assert torch.equal(order.sort().values, indices) and torch.equal(order[-len(kept) :], kept)
    for p_cfg, count in ((0.0, 5000), (1.0, 0)):
        assert len(drop_texts(indices, p_cfg, generator())[1]) == count


@pytest.mark.parametrize("p_cfg", [0.0, 1.0])
def test_all_or_none_dropped(prior, diffusion, vectors, texts, p_cfg):
    loss, _ = PriorTask(prior.train(), diffusion, vectors, texts, p_cfg).loss(
        prior, torch.arange(4), generator(), "cpu"
    )
    loss.backward()
    assert torch.isfinite(loss) and prior.null_text.grad is not None


def test_a_few_steps_of_both_stages_learn(sizes, diffusion, vectors, texts):
    prior = Prior(sizes)
    for stage in (1, 2):
        if stage == 1:
            task = PriorTask(prior, diffusion, vectors, texts, 0.1)
        else:
            task = ControlTask(ControlledPrior(prior, ControlAdapter(prior)), diffusion, vectors, vectors, texts)
        trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=3e-3)
        indices = torch.arange(N).repeat(8)
        losses = []
        for step in range(60):
            loss, _ = task.loss(task.model, indices, generator(step), "cpu")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_what_does_not_fit_is_refused(prior, adapter, diffusion, vectors, texts):
    bad = vectors.clone()
    bad[3, 2] = float("nan")
    with pytest.raises(ValueError, match="z_0: row 3 has a number that is not finite"):
        PriorTask(prior, diffusion, bad, texts, 0.1)
    with pytest.raises(ValueError, match="z_r,delta: row 3"):
        ControlTask(ControlledPrior(prior, adapter), diffusion, bad, vectors, texts)
    with pytest.raises(ValueError, match=r"z_t: vectors are \(12, 23\)"):
        ControlTask(ControlledPrior(prior, adapter), diffusion, vectors, vectors[:, 1:], texts)
    with pytest.raises(ValueError, match="12 texts for 11 embeddings"):
        PriorTask(prior, diffusion, vectors[1:], texts, 0.1)
    with pytest.raises(ValueError, match="11 rows of z_r,delta for 12 of z_t"):
        ControlTask(ControlledPrior(prior, adapter), diffusion, vectors[1:], vectors, texts)
    long = TextConditions.from_list([torch.randn(7, 12)] * N)
    with pytest.raises(ValueError, match="up to 7 tokens, the prior takes 12 and at most 6"):
        PriorTask(prior, diffusion, vectors, long, 0.1)
    with pytest.raises(ValueError, match="p_cfg 1.5"):
        PriorTask(prior, diffusion, vectors, texts, 1.5)
