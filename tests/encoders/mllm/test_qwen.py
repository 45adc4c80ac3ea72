"""The tiny f_M: our batched passes against transformers' own, templates, tokenizer, identity."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.artifacts import ArtifactError
from pipeline.config import EmbedderParams, JobsParams, ParameterError, RerankerParams
from pipeline.encoders.embedding.rows import EncoderRow, decode
from pipeline.encoders.mllm.batched_qwen import language_states, visual_tokens
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.mllm.qwen import IMAGE_SLOT, SPECIAL_TOKENS
from pipeline.encoders.mllm.small_qwen import train_tokenizer
from pipeline.encoders.mllm.transformers_backend import TransformersMllm
from tests.sections import section


@pytest.fixture
def images(make):
    return lambda count: [Image.open(io.BytesIO(make.png(seed))) for seed in range(count)]


@torch.inference_mode()
@pytest.mark.parametrize("with_image", [True, False])
def test_batched_passes_equal_the_forward_of_transformers(make, tiny_mllm, with_image, images):
    model, processor = tiny_mllm.model, tiny_mllm.processor
    texts = [
        tiny_mllm.params.embed_template.format(image=IMAGE_SLOT if with_image else "", text=text) for text in make.texts
    ]
    seen = images(len(texts)) if with_image else None
    batch = processor(text=texts, images=seen, padding=True, padding_side="right", return_tensors="pt")
    expected = model.model(**batch, use_cache=False).last_hidden_state
    visual, prefix = None, 0
    if with_image:
        settings = processor.image_processor
        pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in seen])
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (settings.image_mean, settings.image_std))
        visual = visual_tokens(model, (pixels - mean) / std)
        assert visual.shape == (len(texts), (make.image_size // 8 // 2) ** 2, 64)
        prefix = int((batch["input_ids"][0] == model.config.image_token_id).nonzero()[0])
    states = language_states(model, batch["input_ids"], visual, prefix)
    kept = batch["attention_mask"].bool()
    assert not kept.all(), "the texts differ in length, so there is padding"
    torch.testing.assert_close(states[kept], expected[kept], atol=1e-4, rtol=1e-4)


PLACES = ("<|im_start|>{image}{text}<|im_end|>", "{text}{image}<|im_end|>", "{text}<|im_end|>{image}")


@torch.inference_mode()
@pytest.mark.parametrize("template", PLACES)
@pytest.mark.parametrize("sizes", [(32, 32, 32), (32, 48, 32)], ids=["one size", "two sizes"])
def test_embeddings_are_those_of_transformers_own_forward(make, tiny_params, template, sizes):
    """Also where the image stands elsewhere in every row, and where images differ in size."""
    mllm = TransformersMllm(dataclasses.replace(tiny_params, embed_template=template), "cpu")
    images = [Image.open(io.BytesIO(make.png(seed, size))) for seed, size in enumerate(sizes)]
    texts = [template.format(image=IMAGE_SLOT, text=text) for text in make.texts[:3]]
    mllm.processor.tokenizer.padding_side = "left"
    batch = mllm.processor(text=texts, images=images, padding=True, return_tensors="pt")
    last = mllm.model.model(**batch, use_cache=False).last_hidden_state[:, -1]
    expected = torch.nn.functional.normalize(last, dim=-1).numpy()
    found = mllm.embed([MllmInput(text, image) for text, image in zip(make.texts, images, strict=False)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("template", PLACES[:2])
def test_the_last_text_state_is_the_texts_embedding(make, tiny_params, template):
    mllm = TransformersMllm(dataclasses.replace(tiny_params, embed_template=template), "cpu")
    states, tokenizer = mllm.text_states(make.texts), mllm.processor.tokenizer
    lasts = torch.stack([torch.nn.functional.normalize(one[-1], dim=0) for one in states])
    np.testing.assert_allclose(lasts, mllm.embed([MllmInput(text) for text in make.texts]), atol=1e-5)
    assert [len(one) for one in states] == [len(tokenizer(f"{text}<|im_end|>")["input_ids"]) for text in make.texts]


def test_an_embedding_is_the_last_tokens_unit_state_whatever_the_batch(make, tiny_mllm, images):
    inputs = [MllmInput(text, image) for text, image in zip(make.texts, images(4), strict=True)]
    inputs += [MllmInput("", images(1)[0]), MllmInput("text")]
    together = tiny_mllm.embed(inputs)
    assert together.shape == (6, tiny_mllm.dim) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, np.concatenate([tiny_mllm.embed([one]) for one in inputs]), atol=1e-5)
    assert np.abs(together[0] - together[4]).max() > 1e-3, "the text matters"


def test_leading_dimensions_are_kept_and_renormalised(tiny_params, tiny_mllm):
    short = open_mllm(dataclasses.replace(tiny_params, dim=16), section(JobsParams), "cpu")
    whole, kept = tiny_mllm.embed([MllmInput("a")]), short.embed([MllmInput("a")])
    assert short.dim == 16 and kept.shape == (1, 16)
    np.testing.assert_allclose(kept, whole[:, :16] / np.linalg.norm(whole[:, :16]), atol=1e-6)


def test_generation_gives_the_asked_number_of_answers_in_order(tiny_writer, images):
    inputs = [MllmInput("a red ball", image) for image in images(3)]
    together = tiny_writer.generate(inputs, 3)
    assert together == [tiny_writer.generate([one], 3)[0] for one in inputs]
    assert [len(answers) for answers in tiny_writer.generate(inputs, 3, sequences=2)] == [2, 2, 2]


def test_tokenizer_gives_texts_back_and_keeps_special_tokens_whole(make, tiny_mllm):
    for tokenizer in (train_tokenizer(make.texts * 4, 400), tiny_mllm.processor.tokenizer):
        for text in [*make.texts, "ça coûte 3 €, naïve 🍏", "  two  spaces\n"]:
            assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text
        for token in SPECIAL_TOKENS:
            assert len(tokenizer(token)["input_ids"]) == 1


def test_a_folder_without_a_model_is_an_error_naming_the_parameter(tmp_path):
    with pytest.raises(ArtifactError, match="embedder.path"):
        open_mllm(section(EmbedderParams, path=str(tmp_path / "none")), section(JobsParams), "cpu")


def test_an_image_of_a_query_is_reduced_as_a_jobs_is(make, tiny_mllm, tiny_params):
    """A query hands over a decoded image; a job hands over bytes and reduces them while it decodes them."""
    content = make.png(0, size=90)
    limited = open_mllm(dataclasses.replace(tiny_params, max_side=40), section(JobsParams), "cpu")
    query = MllmInput("red", Image.open(io.BytesIO(content)).convert("RGB"))
    job = decode(EncoderRow("one", "red", content), max_side=40)
    assert job.image.size == (40, 40) and query.at_most(40).image.size == (40, 40) and query.image.size == (90, 90)
    np.testing.assert_array_equal(limited.embed([query]), limited.embed([job]))
    assert np.abs(limited.embed([query]) - tiny_mllm.embed([query])).max() > 1e-4
    assert query.at_most(0) is query and query.at_most(90) is query


PAIR = "<|im_start|>user\n{reference}{modification}?{candidate}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def tiny_verifier(tiny_params):
    """The tiny model where it verifies."""
    params = section(RerankerParams, path=tiny_params.path, template=PAIR, answers=["y", "n"])
    return TransformersMllm(params, "cpu")


@torch.inference_mode()
def test_the_probabilities_of_tokens_are_those_of_transformers_own_forward(make, tiny_verifier, images):
    reference, candidate = images(2)
    inputs = [MllmInput(text, reference, candidate=candidate) for text in make.texts]
    found = tiny_verifier.token_probabilities(inputs, ["y", "n", "o"])
    assert found.shape == (len(inputs), 3) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    model, processor = tiny_verifier.model, tiny_verifier.processor
    tokens = processor.tokenizer.convert_tokens_to_ids(["y", "n", "o"])
    for one, row in zip(inputs, found, strict=True):
        text = PAIR.format(reference=IMAGE_SLOT, modification=one.text, candidate=IMAGE_SLOT)
        batch = processor(text=[text], images=[one.image, one.candidate], return_tensors="pt")
        expected = model(**batch).logits[0, -1].softmax(0)[tokens]
        np.testing.assert_allclose(row, expected / expected.sum(), atol=1e-5)
        np.testing.assert_allclose(tiny_verifier.token_probabilities([one], ["y", "n", "o"])[0], row, atol=1e-5)


def test_an_answer_of_several_tokens_is_told(tiny_verifier, images):
    message = r"reranker.answers: 'yes' is 3 tokens of .*; an answer has to be one token of the model"
    with pytest.raises(ParameterError, match=message):
        tiny_verifier.token_probabilities([MllmInput("it", candidate=images(1)[0])], ["yes", "no"])


def test_both_images_are_reduced(images):
    large, small = images(2)[0].resize((90, 60)), images(1)[0]
    reduced = MllmInput("it", large, candidate=small).at_most(45)
    assert reduced.image.size == (45, 30) and reduced.candidate is small and reduced.at_most(45) is reduced
