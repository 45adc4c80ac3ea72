"""Fusion-Diff's methods over a small prior and adapter with random weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.distill import Jumps, Limits, Student, StudentSampler, StudentSettings
from pipeline.encoders.image_source import ImageTable
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.fusion_diff import (
    ControlAdapter,
    Diffusion,
    Prior,
    PriorSizes,
    Sampler,
    SamplerSettings,
    TextConditions,
)
from pipeline.query.fusion_diff import (
    DESCRIPTION,
    FUSED_DESCRIPTION,
    FUSED_ONLY,
    FUSION_DIFF,
    STAGE1_ONLY,
)
from pipeline.query.fusion_diff_family import FusionDiff, load
from pipeline.query.interface import ControlError, Controls
from pipeline.retrieval import Query
from tests.query.conftest import FakeTextEncoder
from tests.stages.conftest import DIM, TEXT_DIM

REFERENCES = ("red ball", "red cat", "green dog", "blue hat")
QUERIES = [
    Query(f"q{number}", reference, ("with a hat",), ("blue cat",)) for number, reference in enumerate(REFERENCES)
]


@pytest.fixture
def family(models) -> FusionDiff:
    torch.manual_seed(0)
    prior = Prior(PriorSizes.from_params(models.params.prior, DIM, TEXT_DIM, models.params.text_encoder.max_tokens))
    for parameter in prior.parameters():  # a new prior's gates are closed: no text would change what it samples
        torch.nn.init.normal_(parameter, std=0.5)
    adapter = ControlAdapter(prior)
    for layer in (adapter.zero_in, *adapter.zero_out):
        torch.nn.init.normal_(layer.weight, std=0.5)
    diffusion = Diffusion(models.params.prior.diffusion, DIM)
    settings = SamplerSettings(2, 1.0)
    samplers = {
        STAGE1_ONLY: Sampler(prior, None, diffusion, settings),
        FUSION_DIFF: Sampler(prior, adapter, diffusion, settings),
    }
    return FusionDiff(models, samplers)


@pytest.fixture
def images(family) -> ImageTable:
    return ImageTable("data/pairs/images")


def test_all_methods_at_once(family, images):
    found = family.answer(QUERIES, images)
    assert {name: one.vectors.shape for name, one in found.items()} == {
        FUSED_ONLY: (4, DIM),
        DESCRIPTION: (4, DIM),
        FUSED_DESCRIPTION: (4, DIM),
        STAGE1_ONLY: (4, 2, DIM),
        FUSION_DIFF: (4, 2, DIM),
    }
    assert {one.space for one in found.values()} == set(family.spaces) == {"fused"}
    assert found[FUSION_DIFF].descriptions[0] == ["a cat"] and found[FUSED_ONLY].descriptions is None
    np.testing.assert_allclose(np.linalg.norm(found[FUSION_DIFF].vectors, axis=-1), 1.0, rtol=1e-5)


def test_one_query_gets_what_it_gets_among_many(family, images, monkeypatch):
    together = np.random.default_rng(0).normal(size=(4, DIM)).astype(np.float32)
    rows = {reference: vector / np.linalg.norm(vector) for reference, vector in zip(REFERENCES, together, strict=True)}
    monkeypatch.setattr(
        family, "fuse", lambda queries, images: np.stack([rows[query.reference_id] for query in queries])
    )
    many = family.answer(QUERIES, images)
    for row, query in enumerate(QUERIES):
        for method in family.methods:
            one = family.answer([query], images, methods=[method])
            assert list(one) == [method]
            np.testing.assert_allclose(one[method].vectors[0], many[method].vectors[row], atol=1e-6)


def test_each_description_conditions_its_share_of_the_hypotheses(family, images):
    family.params.retrieve.descriptions = 2
    both = family.answer(QUERIES, images, methods=[STAGE1_ONLY])[STAGE1_ONLY]
    assert both.descriptions[0] == ["a cat", "with a hat"]  # nothing was said: the modification stands in
    family.params.retrieve.descriptions, family.params.retrieve.hypotheses = 1, 1
    first = family.answer(QUERIES, images, methods=[STAGE1_ONLY])[STAGE1_ONLY].vectors
    assert both.vectors.shape == (4, 2, DIM)
    np.testing.assert_allclose(both.vectors[:, :1], first, atol=1e-5)
    assert not np.allclose(both.vectors[:, 0], both.vectors[:, 1], atol=1e-3)


def test_targets_are_those_of_the_sampler(family, images):
    """The sampler called directly, on states and ids put together here."""
    found = family.answer(QUERIES[:1], images, methods=[STAGE1_ONLY])[STAGE1_ONLY].vectors
    text = TextConditions.from_list(FakeTextEncoder().encode(["a cat"]))
    states = text.states[None]  # [1, T, text_dim]
    mask = states.new_ones(1, states.shape[1]).bool()
    drawn = family.samplers[STAGE1_ONLY].sample(["q0"], (states, mask), hypotheses=2, seed=family.params.seed)
    np.testing.assert_allclose(found, drawn.numpy(), atol=1e-6)


def test_descriptions_that_are_given_are_not_inferred_again(family, images, monkeypatch):
    own = family.answer(QUERIES, images, methods=[STAGE1_ONLY])[STAGE1_ONLY]
    monkeypatch.setattr(family, "_describer", None)
    given = family.answer(QUERIES, images, methods=[STAGE1_ONLY], descriptions=own.descriptions)[STAGE1_ONLY]
    np.testing.assert_array_equal(given.vectors, own.vectors)


def test_controls(family, images):
    plain = family.answer(QUERIES[:1], images)
    negated = family.answer(QUERIES[:1], images, Controls(negative="a hat", hypotheses=3))
    for method in family.methods:
        assert not np.allclose(negated[method].vectors[0, :1], plain[method].vectors[0, :1], atol=1e-4)
    assert negated[FUSION_DIFF].vectors.shape == (1, 3, DIM) and negated[FUSED_ONLY].vectors.shape == (1, DIM)
    with pytest.raises(ControlError, match="fusion_diff needs a guidance scale above 0"):
        family.answer(QUERIES, images, Controls(negative="a hat", guidance_scale=0.0), [FUSION_DIFF])
    with pytest.raises(ControlError, match="region: stage1_only takes none"):
        family.answer(QUERIES, images, Controls(region=Image.new("L", (32, 32))), [STAGE1_ONLY])


def test_the_rows_that_need_no_diffusion(family, images):
    """The description is embedded alone; the fused description is the slerp of the two at one half."""
    found = {name: one.vectors for name, one in family.answer(QUERIES, images).items()}
    described = family._embedder.embed([MllmInput("a cat")])[0]
    np.testing.assert_array_equal(found[DESCRIPTION], np.tile(described, (4, 1)))
    for fused, both in zip(found[FUSED_ONLY], found[FUSED_DESCRIPTION], strict=True):
        angle = np.arccos(np.dot(fused, described))
        slerp = np.sin(angle / 2) / np.sin(angle) * (fused + described)
        np.testing.assert_allclose(both, slerp, atol=1e-5)


@pytest.mark.parametrize("signal", [FUSED_ONLY, FUSED_DESCRIPTION])
def test_what_steers_and_what_samples_are_drawn_towards(family, images, signal):
    family.params.control.signal = "fused" if signal == FUSED_ONLY else "fused_description"
    family.params.retrieve.anchor = 0.0
    found = family.answer(QUERIES, images)
    steering = torch.from_numpy(found[signal].vectors)
    text = TextConditions.from_list(FakeTextEncoder().encode(["a cat"] * 4)).batch(torch.arange(4))
    ids = [query.query_id for query in QUERIES]
    drawn = family.samplers[FUSION_DIFF].sample(ids, text, steering, hypotheses=2, seed=family.params.seed).numpy()
    np.testing.assert_allclose(found[FUSION_DIFF].vectors, drawn, atol=1e-6)
    family.params.retrieve.anchor = 0.25
    anchor = found[FUSED_DESCRIPTION].vectors[:, None]
    expected = 0.75 * drawn + 0.25 * anchor
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    anchored = family.answer(QUERIES, images)
    np.testing.assert_allclose(anchored[FUSION_DIFF].vectors, expected, atol=1e-6)
    np.testing.assert_array_equal(anchored[STAGE1_ONLY].vectors, found[STAGE1_ONLY].vectors)


def test_without_trained_models_the_unsampled_methods_answer(models, images):
    """Nothing is loaded from models/prior, which is not there."""
    family = load(models, [DESCRIPTION])
    assert set(family.answer(QUERIES[:1], images, methods=[DESCRIPTION])) == {DESCRIPTION}


def test_a_student_answers_within_what_it_learned(family, images):
    sampler = family.samplers[FUSION_DIFF]
    student = Student.of(sampler.prior, sampler.adapter, Limits(4.0, 1.0)).eval()
    torch.nn.init.normal_(student.jump.outer.weight, std=0.5)
    family.samplers[FUSION_DIFF] = StudentSampler(student, Jumps(sampler.diffusion, 4), StudentSettings(2, 1.0))
    plain, other = (
        family.answer(QUERIES, images, controls, [FUSION_DIFF])[FUSION_DIFF].vectors
        for controls in (Controls(), Controls(guidance_scale=3.0))
    )
    assert plain.shape == (4, 2, DIM) and not np.allclose(plain, other, atol=1e-4)
    with pytest.raises(ControlError, match=r"guidance_scale 4\.5 is above 4, the largest that it learned"):
        family.answer(QUERIES, images, Controls(guidance_scale=4.5), [FUSION_DIFF])
    with pytest.raises(ControlError, match=r"fusion_diff takes none with retrieve\.sampler distilled"):
        family.answer(QUERIES, images, Controls(negative="a hat"), [FUSION_DIFF])
