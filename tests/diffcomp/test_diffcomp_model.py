"""The whole model: every ablation trains, inference agrees with training's parts, images, storing."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.diffcomp import Batch, Phrases, slerp
from pipeline.diffcomp.cam import class_activation
from pipeline.diffcomp.masking import pad_phrases
from pipeline.diffcomp.model import Guides

CAPTIONS = ["a red ball", "a cat with a hat", "a dog", "a dog", "a blue hat", "a red dog with a ball"]
PHRASES = [["a red ball"], ["a cat", "a hat"], [], ["a dog"], ["a blue hat"], ["a red dog", "a ball"]]
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
    {"phi": 0.0},
    {"phi": 1.0},
    {"gradient_checkpointing": True},
]


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
    torch.testing.assert_close(terms["loss"], terms["align"] + terms["diff"] + terms["ratio"])  # equation (17)
    assert (terms["diff"] != 0) == (model.masking == "phrase")
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
    model = make_model(dac=False)
    inputs = batch(model, pixels)
    phrases = model.encode_text(inputs.phrases.ids).detach().requires_grad_()
    guides = Guides(phrases[:6], *pad_phrases(phrases, inputs.phrases.offsets))
    model.views(inputs.images, guides, seeded()).masked_image.square()[:, :7].sum().backward()
    assert phrases.grad.abs().sum() > 0 and model.gamma.grad != 0 and model.b.grad != 0


def test_nothing_masked_leaves_the_image_as_it_is(make_model, pixels):
    model = make_model(psm=False, eta=0.0)
    images = model.encoder.normalise(pixels)
    views = model.views(images, Guides(model.encode_image(images)), seeded())
    torch.testing.assert_close(views.masked_image, views.image)
    reference = model.reference(images)
    torch.testing.assert_close(views.super_patches, reference.super_patches)
    torch.testing.assert_close(reference.image, model.encode_image(images))


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 3])
def test_masked_patches_are_never_read(make_model, pixels, blocks):
    """f_Id and the retained f_j do not change with what stands under the mask, in any block."""
    model = make_model(psm=False, eta=0.5, local_blocks=blocks)
    images = model.encoder.normalise(pixels)
    views = model.views(images, Guides(model.encode_image(images)), seeded())
    spread = model.super_patches.spread(views.mask, model.super_patches.assign(images)).view(6, 1, 4, 4)
    hidden = torch.nn.functional.interpolate(spread, 32)
    again = model.views(images * (1 - hidden) + 9 * hidden, Guides(views.image), seeded())
    assert torch.equal(again.mask, views.mask)
    torch.testing.assert_close(again.masked_image, views.masked_image, atol=1e-5, rtol=0)
    kept = views.retained.bool()
    torch.testing.assert_close(again.super_patches[kept], views.super_patches[kept], atol=1e-5, rtol=0)
    assert not torch.allclose(again.image, views.image, atol=1e-3)


def test_where_a_mask_is_learned_the_tokens_have_a_gradient_in_frozen_blocks_too(make_model, pixels, monkeypatch):
    """Memory-efficient attention on a GPU refuses its backward pass otherwise."""
    model, seen = make_model(), []
    own = model.encoder.block

    def block(layer, tokens, bias):
        seen.append(bias is None or tokens.requires_grad or not bias.requires_grad)
        return own(layer, tokens, bias)

    monkeypatch.setattr(model.encoder, "block", block)
    model(batch(model, pixels), seeded())["loss"].backward()
    assert all(seen) and len(seen) > 6


def test_an_image_whose_super_patches_are_all_masked_stays_finite(make_model, pixels):
    model = make_model(psm=False, eta=1.0)
    terms = model(batch(model, pixels), seeded())
    terms["loss"].backward()
    assert terms["masked_share"] == 1 and terms["loss"].isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    images = model.encoder.normalise(pixels)
    views = model.views(images, Guides(model.encode_image(images)), seeded())
    alone = model.encoder.project(model.encoder.run(model.encoder.embed_patches(images)[:, :1], 0, 3)[:, 0])
    torch.testing.assert_close(views.masked_image, alone, atol=1e-5, rtol=0)  # CLS reads itself


def test_the_gradient_of_a_soft_mask_against_finite_differences(make_model, pixels):
    """Through gamma and b, the attention of all blocks, the composition and the three losses, in float64."""
    model = make_model(mask_model="sigmoid", local_blocks=3, gamma=2.0).double()
    inputs = batch(model, pixels)
    inputs = dataclasses.replace(inputs, images=inputs.images.double())
    for parameter in (model.gamma, model.b):
        model.zero_grad()
        model(inputs, seeded())["loss"].backward()
        losses = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                parameter += step
                losses.append(model(inputs, seeded())["loss"].item())
        with torch.no_grad():
            parameter += 1e-5
        assert parameter.grad.item() == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-8)
        assert parameter.grad != 0


def test_super_patches_pass_through_the_whole_encoder_alone(make_model, pixels):
    """Equation (2) with k = L: CLS and the four patches of one super-patch, nothing else."""
    model = make_model(local_blocks=3)
    tokens = model.encoder.embed_patches(model.encoder.normalise(pixels))
    own = [0, 1 + 2, 1 + 3, 1 + 6, 1 + 7]  # CLS, and the right upper quarter of 4 x 4 patches
    expected = model.encoder.project(model.encoder.run(tokens[:, own], 0, 3)[:, 0])
    found = model.reference(model.encoder.normalise(pixels)).super_patches[:, 1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_with_k_blocks_a_super_patch_has_seen_its_image_before_the_last_k(make_model, pixels, k):
    """All patches to block L - k; then CLS and the four patches of one super-patch."""
    model = make_model(local_blocks=k)
    images = model.encoder.normalise(pixels)
    before = model.encoder.run(model.encoder.embed_patches(images), 0, 3 - k)
    own = [0, 1 + 2, 1 + 3, 1 + 6, 1 + 7]
    expected = model.encoder.project(model.encoder.run(before[:, own], 3 - k, 3)[:, 0])
    torch.testing.assert_close(model.reference(images).super_patches[:, 1], expected, atol=1e-5, rtol=0)


def test_equation_6_over_the_features_of_the_model(make_model, pixels):
    """p_j = sigmoid(gamma z_j + b), z_j from cosines and saliencies written out with NumPy in float64."""
    model = make_model(gamma=3.0, saliency_temperature=0.5).double()
    with torch.no_grad():
        model.b.fill_(-0.7)
    inputs = batch(model, pixels)
    images = inputs.images.double()
    with torch.no_grad():
        local, phrases = model.reference(images).super_patches.numpy(), model.encode_text(inputs.phrases.ids).numpy()
    found, offsets = model.mask_map(images, inputs.phrases), inputs.phrases.offsets.tolist()
    for image, (start, end) in enumerate(zip(offsets, offsets[1:], strict=False)):
        cosines = phrases[start:end] @ local[image].T  # [P, 4]
        salient = np.exp(cosines.mean(1) / 0.5)
        expected = 1 / (1 + np.exp(-(3.0 * (salient / salient.sum()) @ cosines - 0.7)))
        np.testing.assert_allclose(found[image, ::2, ::2].flatten(), expected, atol=1e-9)


def test_equation_17_is_the_sum_of_the_three(make_model, pixels):
    model = make_model()
    terms = model(batch(model, pixels), seeded())
    assert terms["loss"].item() == pytest.approx(sum(terms[name].item() for name in ("align", "diff", "ratio")))
    assert all(terms[name] != 0 for name in ("align", "diff", "ratio"))


def test_progress_counts_images_in_training_only(make_model, pixels):
    model = make_model(steps=4, batch_size=6)
    model(batch(model, pixels), seeded())
    model.eval()(batch(model, pixels), seeded())
    assert model.progress == 0.25


def test_class_activation_is_the_gradient_of_the_score(make_model, pixels):
    """Against finite differences: the last block's input, one channel of all patches at a time."""
    model = make_model().double()
    encoder = model.encoder
    tokens = encoder.embed_patches(encoder.normalise(pixels[:1]).double())
    text = encoder.encode_text(encoder.tokenize(CAPTIONS[:1]))
    inner = encoder.run(tokens, 0, 2).detach()

    def score(values):
        return (encoder.project(encoder.run(values, 2, 3)[:, 0]) * text).sum().item()

    weights, step = torch.zeros(64, dtype=torch.float64), 1e-5
    with torch.no_grad():
        for channel in range(64):
            shift = torch.zeros_like(inner)
            shift[:, 1:, channel] = step
            weights[channel] = (score(inner + shift) - score(inner - shift)) / (2 * step) / 16
    expected = (inner[0, 1:] @ weights).clamp(min=0)
    torch.testing.assert_close(class_activation(encoder, tokens, text)[0], expected, atol=1e-7, rtol=0)


def test_compose_is_the_composition_of_the_unmasked_reference(make_model, pixels):
    model = make_model(phi=0.0).eval()
    images, texts = model.encoder.normalise(pixels), model.encoder.tokenize(CAPTIONS)
    expected = slerp(model.encode_image(images), model.encode_text(texts), 0.4)
    torch.testing.assert_close(model.compose(images, texts), expected, atol=1e-5, rtol=0)
    one = model.compose(images[:1], texts[:1])
    torch.testing.assert_close(one, model.compose(images, texts)[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("values", [{}, {"css": False}, {"grouping": "kmeans"}], ids=str)
def test_maps_for_images(make_model, pixels, values):
    model = make_model(**values).eval()
    inputs = batch(model, pixels)
    kept = model.kept_map(inputs.images, inputs.text_ids)
    masked = model.mask_map(inputs.images, inputs.phrases)
    for found in (kept, masked):
        assert found.shape == (6, 4, 4) and ((found >= 0) & (found <= 1)).all()
    if not values:
        model.start_threshold(inputs.images, inputs.phrases)
        assert model.mask_map(inputs.images, inputs.phrases).mean().item() == pytest.approx(0.7, abs=1e-4)
        assert torch.equal(kept[:, 0, 0], kept[:, 1, 1])
    aligned, perturbed = model.similarities(inputs, seeded())
    assert aligned.shape == perturbed.shape == (6,)


def test_sizes_that_do_not_fit_the_encoder_are_refused(make_model):
    with pytest.raises(ValueError, match="super_patch: 3"):
        make_model(super_patch=3)
    with pytest.raises(ValueError, match="image_layers: 9 .* 3"):
        make_model(image_layers=9)
    with pytest.raises(ValueError, match="crop"):
        make_model(masking="crop", grouping="kmeans")
