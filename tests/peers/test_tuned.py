"""SlerpTAT and PLI: their losses by hand, what is trained, and what a query is."""

import math
from pathlib import Path

import pytest
import torch

from pipeline.config import ParameterError, as_dict, load_profile, params_from_dict
from pipeline.diffcomp import slerp
from pipeline.peers.pli import Pli
from pipeline.peers.slerp_tat import SlerpTat
from pipeline.peers.tuned import CaptionBatch, CaptionedImages
from pipeline.training import Run, train
from tests.diffcomp.conftest import make_encoder, pixels

__all__ = ["make_encoder", "pixels"]
ROOT = Path(__file__).parents[2]
CAPTIONS = ["a red ball", "a blue cat", "a dog with a hat", "a red ball", "a red cat", "a blue hat"]


@pytest.fixture
def params():
    """The parameters `peers`, small enough for a small backbone."""
    found = load_profile("offline", ROOT / "conf").peers
    for section in (found.slerp_tat, found.pli):
        section.steps, section.batch_size, section.warmup_steps, section.log_every = 6, 4, 0, 1
        section.checkpoint_every = 2
    found.pli.text_layers = 1
    return found


def caption_features(encoder) -> torch.Tensor:
    with torch.no_grad():
        return encoder.encode_text(encoder.tokenize(CAPTIONS))


def batch_of(encoder) -> CaptionBatch:
    return CaptionBatch(CAPTIONS, caption_features(encoder), torch.tensor([0, 1, 2, 0, 3, 4]))


def by_hand(queries, keys, scale, twins) -> float:
    """InfoNCE with plain loops over the rows."""
    total = 0.0
    for row, query in enumerate(queries):
        logits = {column: float(scale * (query @ key)) for column, key in enumerate(keys)}
        seen = [math.exp(value) for column, value in logits.items() if column == row or (row, column) not in twins]
        total -= math.log(math.exp(logits[row]) / sum(seen))
    return total / len(queries)


TWINS = {(0, 3), (3, 0)}


def test_slerp_tat_pulls_images_and_texts_together(make_encoder, params, pixels):
    encoder = make_encoder()
    peer = SlerpTat(encoder, params)
    images = encoder.normalise(pixels)
    found = peer(images, batch_of(encoder), torch.Generator())
    with torch.no_grad():
        image, text = encoder.encode_image(images).double(), caption_features(encoder).double()
        scale = float(encoder.logit_scale.exp())
    expected = (by_hand(image, text, scale, TWINS) + by_hand(text, image, scale, TWINS)) / 2
    assert float(found["loss"].detach()) == pytest.approx(expected, rel=1e-4)
    assert float(found["cos_aligned"]) == pytest.approx(float((image * text).sum(-1).mean()), abs=1e-5)


def test_pli_composes_a_masked_image_with_its_caption(make_encoder, params, pixels):
    encoder, generator = make_encoder(), torch.Generator().manual_seed(5)
    peer = Pli(encoder, params)
    images = encoder.normalise(pixels)
    loss = float(peer(images, batch_of(encoder), generator)["loss"].detach())
    drawn = torch.rand(6, 16, generator=torch.Generator().manual_seed(5))
    mask = torch.zeros(6, 16).scatter(1, drawn.topk(8).indices, 1.0)  # half of 16 patches
    with torch.no_grad():
        hidden = encoder.assemble(encoder.patchify(images) * (1 - mask)[..., None])
        masked = encoder.project(encoder.run(hidden, 0, encoder.depth)[:, 0])
        composed = slerp(masked, caption_features(encoder), params.pli.masked_text_weight).double()
        expected = by_hand(composed, encoder.encode_image(images).double(), float(encoder.logit_scale.exp()), TWINS)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_an_unmasked_image_is_encoded_as_always(make_encoder, params, pixels):
    peer = Pli(make_encoder(), params)
    images = peer.tuned.normalise(pixels)
    torch.testing.assert_close(peer.encode_masked(images, torch.zeros(6, 16)), peer.tuned.encode_image(images))


@pytest.mark.parametrize(("kind", "text_trained"), [(SlerpTat, False), (Pli, True)])
def test_gradients_reach_the_last_blocks_of_the_copy_alone(make_encoder, params, pixels, kind, text_trained):
    encoder = make_encoder()
    peer = kind(encoder, params)
    peer(encoder.normalise(pixels), batch_of(encoder), torch.Generator())["loss"].backward()
    assert all(weight.grad is None for weight in encoder.parameters())
    tuned = peer.tuned
    assert all(weight.grad is not None for weight in tuned.image_blocks[-2:].parameters())
    assert all(weight.grad is None for weight in tuned.image_blocks[:-2].parameters())
    assert all((weight.grad is not None) == text_trained for weight in tuned.text_blocks[-1].parameters())
    assert all(weight.grad is None for weight in tuned.text_blocks[:-1].parameters())


def test_a_query_lies_on_the_arc(make_encoder, params, pixels):
    peer = SlerpTat(make_encoder(), params).eval()
    params.slerp_tat.text_weight = 0.25
    with torch.no_grad():
        images, texts = peer.encoder.encode_image(peer.encoder.normalise(pixels)), caption_features(peer.encoder)
        query = peer.compose(images, CAPTIONS)
    angle = (images * texts).sum(-1).acos()
    torch.testing.assert_close((images * query).sum(-1).acos(), angle / 4, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", [SlerpTat, Pli])
def test_training_tunes_and_resumes_to_the_same_weights(make_encoder, params, pixels, kind, tmp_path):
    def trained(folder, *lengths):
        torch.manual_seed(0)
        encoder = make_encoder()
        for steps in lengths:
            torch.manual_seed(0)
            peer = kind(encoder, params)
            peer.params.steps = steps
            task = CaptionedImages(peer, pixels, CAPTIONS, caption_features(encoder))
            log = train(task, peer.params, Run(0, tmp_path / folder, {}, "cpu"))
        return peer.state_dict(), log

    params.slerp_tat.schedule = params.pli.schedule = "constant"
    (whole, log), (resumed, _) = trained("whole", 6), trained("resumed", 4, 6)
    assert log[-1]["loss"] < log[0]["loss"] or kind is Pli
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=0)


def test_backbones_that_cannot_be_tuned_are_refused(make_encoder, params):
    with pytest.raises(ValueError, match=r"peers.slerp_tat: a backbone of type Linear cannot be tuned"):
        SlerpTat(torch.nn.Linear(2, 2), params)
    params.pli.image_layers = 9
    with pytest.raises(ValueError, match=r"peers.pli.image_layers: 9 blocks to train, the image tower has 3"):
        Pli(make_encoder(), params)


@pytest.mark.parametrize(("name", "value"), [("masked", 1.0), ("text_weight", 1.5), ("image_layers", -1)])
def test_bad_numbers_are_refused(name, value):
    values = as_dict(load_profile("offline", ROOT / "conf"))
    values["peers"]["pli"][name] = value
    with pytest.raises(ParameterError, match=rf"peers\.pli\.{name}"):
        params_from_dict(values)


def test_captions_that_are_equal_have_one_label(make_encoder, params, pixels):
    task = CaptionedImages(SlerpTat(make_encoder(), params), pixels, CAPTIONS, torch.zeros(6, 48))
    assert task.labels.tolist() == [0, 1, 2, 0, 3, 4] and len(task) == 6
