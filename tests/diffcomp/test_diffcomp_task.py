"""The training task: batches, composition texts, missing phrases, and that a few steps learn."""

import logging

import pytest
import torch

from pipeline.config import DiffCompParams
from pipeline.diffcomp import DiffComp, DiffCompTask
from pipeline.diffcomp.model import Guides
from pipeline.diffcomp.tuning import fine_tune
from pipeline.training import Run
from tests.sections import section

CAPTIONS = ["a red ball", "a cat with a hat", "a dog", "a dog", "a blue hat", "a red dog with a ball"]
PHRASES = [["a red ball"], ["a cat", "a hat"], [], ["a dog"], ["a blue hat"], ["a red dog", "a ball"]]


@pytest.fixture
def make_task(make_encoder, pixels):
    def make(phrases=PHRASES, words=(), **values):
        model = DiffComp(
            make_encoder(),
            section(DiffCompParams, **{"image_layers": 3, "text_layers": 2, "lambda_base": 0.4, **values}),
        )
        return DiffCompTask(model, pixels, CAPTIONS, phrases, words)

    return make


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def texts(task, rows):
    table = list(task._table)
    return [table[row] for row in rows.tolist()]


def test_the_composition_text_is_the_caption(make_task):
    task = make_task()
    assert task._composition_texts(torch.arange(6), seeded()) == CAPTIONS


def test_a_missing_phrase_becomes_the_caption_and_is_counted_once(make_task, caplog):
    with caplog.at_level(logging.INFO):
        task = make_task(phrases=[[] for _ in PHRASES])
    assert [record.getMessage() for record in caplog.records] == [
        "6 of 6 captions have no phrases: the whole caption stands in"
    ]
    assert texts(task, task.guide_rows) == CAPTIONS


def test_masks_start_at_a_share_of_eta(make_task):
    task = make_task(eta=0.6)
    images = task.model.encoder.normalise(task.images)
    probabilities = task.model.mask_map(images, task._guides(torch.arange(6), "cpu"))
    assert probabilities.mean().item() == pytest.approx(0.6, abs=1e-4)


def test_slices_are_the_samples_own(make_task):
    task = make_task()
    rows, offsets = task._slices(task.guide_rows, task.guide_starts, torch.tensor([5, 2, 1]))
    assert texts(task, rows) == ["a red dog", "a ball", "a dog", "a cat", "a hat"]
    assert offsets.tolist() == [0, 2, 3, 5]


def test_granularity(make_task):
    task = make_task(granularity="sentence")
    assert texts(task, task.guide_rows) == CAPTIONS


def test_the_loss_repeats_and_says_its_terms(make_task):
    task = make_task()
    assert len(task) == 6
    (loss, logs), (again, _) = (task.loss(task.model, torch.tensor([0, 3, 5]), seeded(), "cpu") for _ in range(2))
    assert loss.requires_grad and logs["align"].requires_grad is False
    assert {"align", "diff", "ratio", "masked_share"} <= logs.keys()
    torch.testing.assert_close(loss, again)


RELATIVE = {"fill": "relative", "relatives": 2}


def test_relatives_have_other_captions_and_choose_the_text(make_task):
    task, everyone = make_task(text="difference", **RELATIVE), torch.arange(6)
    for n in range(20):
        relatives = task._draw_relatives(everyone, seeded(n))
        assert (task.caption_rows[relatives] != task.caption_rows).all()
        told = task._composition_texts(everyone, seeded(n), relatives)
        for own, other, text in zip(CAPTIONS, [CAPTIONS[row] for row in relatives], told, strict=True):
            assert text.split() == ([word for word in own.split() if word not in other.split()] or own.split())


def test_carrier_words_stand_around_a_share_of_the_texts(make_task):
    task, everyone = make_task(text="caption", carriers=0.5, words=["zig", "zag"]), torch.arange(6)
    carried = [
        text for n in range(60) for text in zip(task._composition_texts(everyone, seeded(n)), CAPTIONS, strict=True)
    ]
    assert all(
        " ".join(word for word in text.split() if word not in ("zig", "zag")) == caption for text, caption in carried
    )
    # half are carried, and one in 25 of those gets no word on either side
    assert 0.4 < sum(text != caption for text, caption in carried) / len(carried) < 0.56
    assert max(len(text.split()) - len(caption.split()) for text, caption in carried) == 8
    with pytest.raises(ValueError, match="carriers 0.5 needs words"):
        make_task(carriers=0.5)


def test_relatives_are_negatives_and_fill_the_masks(make_task):
    task = make_task(**RELATIVE, psm=False, masking="random", eta=1.0)
    loss, logs = task.loss(task.model, torch.arange(6), seeded(), "cpu")
    loss.backward()
    assert logs["masked_share"] == 1.0
    # all masked and filled: the model sees the relative and nothing of the image
    images, others = (
        task.model.encoder.normalise(task.images[rows]) for rows in (torch.arange(6), torch.arange(5, -1, -1))
    )
    views = task.model.views(images, Guides(images[:, 0, 0]), seeded(), others)
    torch.testing.assert_close(views.masked_image, task.model.encoder.encode_image(others), atol=1e-5, rtol=0)


def test_augmentation_varies_the_images_and_repeats(make_task):
    plain, varied = make_task(), make_task(augment=True)
    rows = torch.arange(6)
    assert torch.equal(plain._pixels(rows, seeded(), "cpu"), plain.model.encoder.normalise(plain.images))
    one, again, other = (varied._pixels(rows, seeded(n), "cpu") for n in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("values", [{}, {"css": False, "psm": False, "dac": False}, RELATIVE], ids=str)
def test_a_few_steps_learn(make_task, values):
    task = make_task(**values)
    optimiser = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], 1e-3)
    generator, losses = seeded(), []
    for _ in range(15):
        loss, _ = task.loss(task.model, torch.arange(6), generator, "cpu")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])


def test_what_does_not_fit_is_refused(make_task, pixels):
    model = make_task().model
    with pytest.raises(ValueError, match=r"float32 .* \(3, 32, 32\)"):
        DiffCompTask(model, pixels.float(), CAPTIONS, PHRASES)
    with pytest.raises(ValueError, match="6 images, 5 captions"):
        DiffCompTask(model, pixels, CAPTIONS[:5], PHRASES)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_tuned_weights_go_back_towards_the_backbone(make_task, tmp_path, share):
    trained = {}
    for name, value in (("tuned", 0.0), ("blended", share)):
        torch.manual_seed(0)
        task = make_task(backbone_share=value, steps=3, batch_size=6, lr=1e-2)
        before = {key: weight.detach().clone() for key, weight in task.model.encoder.named_parameters()}
        fine_tune(task, Run(0, tmp_path / name, {}, "cpu"))
        trained[name] = dict(task.model.encoder.named_parameters())
    assert any(not torch.equal(weight, before[key]) for key, weight in trained["tuned"].items())
    for key, weight in trained["blended"].items():
        torch.testing.assert_close(weight, (1 - share) * trained["tuned"][key] + share * before[key])
