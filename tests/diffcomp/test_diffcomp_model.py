"""The whole model: every ablation trains, inference agrees with training's parts, images, storing."""

import dataclasses

import pytest
import torch

from pipeline.artifacts import ArtifactError
from pipeline.config import DiffCompParams
from pipeline.diffcomp import Batch, DiffComp, Phrases, load_diffcomp, save_diffcomp, slerp
from tests.sections import section

CAPTIONS = ["a red ball", "a cat with a hat", "a dog", "a dog", "a blue hat", "a red dog with a ball"]
PHRASES = [["a red ball"], ["a cat", "a hat"], [], ["a dog"], ["a blue hat"], ["a red dog", "a ball"]]
SMALL = {"image_layers": 2, "text_layers": 1, "alpha_base": 0.4}
TABLE_8 = [
    {"css": css, "psm": psm, "dac": dac} for css in (False, True) for psm in (False, True) for dac in (False, True)
]
TABLES_9_AND_10 = [
    {"super_patch": 1},
    {"super_patch": 4},
    {"grouping": "kmeans"},
    {"masking": "random"},
    {"masking": "crop"},
    {"masking": "cam"},
    {"mask_model": "hard"},
    {"mask_model": "sigmoid"},
    {"mask_model": "gumbel"},
    {"local_blocks": 0},
    {"local_blocks": 3},
    {"lam": 0.0},
    {"lam": 1.0},
    {"gradient_checkpointing": True},
]


@pytest.fixture
def make_model(make_encoder):
    return lambda **values: DiffComp(make_encoder(), section(DiffCompParams, **{**SMALL, **values}))


def batch(model, pixels):
    encoder = model.encoder
    counts = torch.tensor([0] + [max(1, len(phrases)) for phrases in PHRASES])
    flat = [phrase for phrases, caption in zip(PHRASES, CAPTIONS, strict=True) for phrase in phrases or [caption]]
    captions = encoder.tokenize(CAPTIONS)
    return Batch(
        encoder.normalise(pixels),
        captions,
        composition_ids=captions.flip(0),
        phrases=Phrases(encoder.tokenize(flat), counts.cumsum(0)),
        labels=torch.tensor([CAPTIONS.index(caption) for caption in CAPTIONS]),
    )


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("values", TABLE_8 + TABLES_9_AND_10, ids=str)
def test_every_variant_trains_all_that_it_declares(make_model, pixels, values):
    model = make_model(**values)
    terms = model(batch(model, pixels), seeded())
    expected = terms["comp"] + model.params.w_align * terms["align"] + model.params.w_ratio * terms["ratio"]
    torch.testing.assert_close(terms["loss"], expected)
    terms["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    frozen = model.encoder.image_blocks[0].parameters()
    assert not any(parameter.requires_grad for parameter in frozen)
    model.eval()
    composed = model.compose(batch(model, pixels).images, batch(model, pixels).text_ids)
    torch.testing.assert_close(composed.norm(dim=-1), torch.ones(6))


def test_equal_draws_give_equal_losses(make_model, pixels):
    losses = [(model := make_model())(batch(model, pixels), seeded())["loss"] for _ in range(2)]
    assert torch.equal(*losses)


def test_checkpointing_changes_nothing(make_model, pixels):
    gradients = []
    for checkpointing in (False, True):
        model = make_model(gradient_checkpointing=checkpointing)
        model(batch(model, pixels), seeded())["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_bf16_autocast_stays_near(make_model, pixels):
    model = make_model(psm=False)
    whole = model(batch(model, pixels), seeded())["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch(model, pixels), seeded())["loss"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, atol=0.15, rtol=0.05)


def test_psm_off_masks_at_random_and_reads_no_phrases(make_model, pixels):
    model = make_model(psm=False)
    inputs = dataclasses.replace(batch(model, pixels), phrases=None)
    assert model(inputs, seeded())["masked_share"].item() == pytest.approx(0.75)  # 3 of 4 super-patches
    with pytest.raises(ValueError, match="needs phrases and their offsets"):
        make_model()(inputs, seeded())


def test_the_phrases_steer_the_masks_by_gradient(make_model, pixels):
    model = make_model(w_align=0.0, w_ratio=0.0, dac=False)
    inputs = batch(model, pixels)
    phrases = model.encode_text(inputs.phrases.ids).detach().requires_grad_()
    model.views(inputs.images, phrases, inputs.phrases.offsets, seeded()).masked_image.square()[:, :7].sum().backward()
    assert phrases.grad.abs().sum() > 0


def test_nothing_masked_leaves_the_image_as_it_is(make_model, pixels):
    model = make_model(psm=False, rho=0.0)
    views = model.views(model.encoder.normalise(pixels), None, None, seeded())
    torch.testing.assert_close(views.masked_image, views.image)
    image, local, _ = model.reference_features(model.encoder.normalise(pixels))
    torch.testing.assert_close(views.masked_super_patches, local)
    torch.testing.assert_close(image, model.encode_image(model.encoder.normalise(pixels)))


def test_compose_is_the_composition_of_the_unmasked_reference(make_model, pixels):
    model = make_model(lam=0.0).eval()
    images, texts = model.encoder.normalise(pixels), model.encoder.tokenize(CAPTIONS)
    text, (image, local, _) = model.encode_text(texts), model.reference_features(images)
    expected = slerp(image, text, model.composition.weights(local, text).mean(1))
    torch.testing.assert_close(model.compose(images, texts), expected, atol=1e-5, rtol=0)
    one = model.compose(images[:1], texts[:1])
    torch.testing.assert_close(one, model.compose(images, texts)[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("values", [{}, {"css": False}, {"grouping": "kmeans"}], ids=str)
def test_maps_for_images(make_model, pixels, values):
    model = make_model(**values).eval()
    inputs = batch(model, pixels)
    kept = model.alpha_map(inputs.images, inputs.text_ids)
    masked = model.mask_map(inputs.images, inputs.phrases)
    for found in (kept, masked):
        assert found.shape == (6, 4, 4) and ((found >= 0) & (found <= 1)).all()
    if not values:
        torch.testing.assert_close(masked.mean((1, 2)), torch.full((6,), 0.7), atol=1e-3, rtol=0)
        assert torch.equal(kept[:, 0, 0], kept[:, 1, 1])
    aligned, perturbed = model.similarities(inputs, seeded())
    assert aligned.shape == perturbed.shape == (6,)


def test_store_and_load(make_model, make_encoder, pixels, tmp_path):
    model = make_model(super_patch=4, lam=0.2)
    model(batch(model, pixels), seeded())["loss"].backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    save_diffcomp(tmp_path / "full", model)
    again = load_diffcomp(tmp_path / "full", make_encoder())
    assert dataclasses.asdict(again.params) == dataclasses.asdict(model.params)
    inputs = batch(model, pixels)
    assert torch.equal(
        again.compose(inputs.images, inputs.text_ids), model.eval().compose(inputs.images, inputs.text_ids)
    )
    with pytest.raises(ArtifactError, match="tensor"):
        load_diffcomp(tmp_path / "full", make_encoder(vision_layers=4))


def test_sizes_that_do_not_fit_the_encoder_are_refused(make_model):
    with pytest.raises(ValueError, match="super_patch: 3"):
        make_model(super_patch=3)
    with pytest.raises(ValueError, match="image_layers: 9 .* 3"):
        make_model(image_layers=9)
    with pytest.raises(ValueError, match="crop"):
        make_model(masking="crop", grouping="kmeans")
