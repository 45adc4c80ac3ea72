"""Checkpoints of every architecture that f_M may have, and of those that it may not."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from bench.rehearsal.sizes import MLLMS, T5S, tiny_mllm, tiny_t5
from bench.rehearsal.weights import write_mllm, write_t5
from pipeline.artifacts import ArtifactError
from pipeline.encoders.mllm import checkpoint
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.mllm.slot import SLOT
from tests.sections import profile

TEMPLATE = "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{image}{text}<|im_end|>\n<|endoftext|>"
NAMES = ("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-2B-Instruct")


@pytest.fixture(scope="module", params=NAMES)
def section(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    write_mllm(folder, tiny_mllm(MLLMS[request.param]), torch.float32)
    return dataclasses.replace(
        profile("offline").embedder,
        path=str(folder),
        dim=8,
        embed_template=TEMPLATE,
        query_instruction="find it",
        document_instruction="a thing",
    )


def drawn(number, size=56):
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def last_state(section, one, instruction):
    """By the library alone: one input, unpadded, the model's own forward pass."""
    processor = AutoProcessor.from_pretrained(section.path)
    model = AutoModelForImageTextToText.from_pretrained(section.path).eval()
    slot = "<|vision_start|><|image_pad|><|vision_end|>" if one.image else ""
    text = TEMPLATE.format(instruction=instruction, image=slot, text=one.text)
    batch = processor(text=[text], images=[one.image] if one.image else None, return_tensors="pt")
    with torch.inference_mode():
        hidden = model.model(**batch).last_hidden_state[0, -1, :8]
    return F.normalize(hidden, dim=0).numpy()


def test_embeddings_are_the_last_states_of_the_models_own_forward_pass(section):
    inputs = [
        MllmInput("red", drawn(1)),
        MllmInput("a long text of many words", drawn(2), is_query=True),
        MllmInput(image=drawn(3)),
        MllmInput("text alone"),
    ]
    found = open_mllm(section, profile("offline").jobs, "cpu").embed(inputs)
    for one, vector in zip(inputs, found, strict=True):
        instruction = "find it" if one.is_query else "a thing"
        assert np.allclose(vector, last_state(section, one, instruction), atol=2e-5)


def test_texts_are_written_by_the_same_checkpoint(section):
    describer = dataclasses.replace(profile("offline").describer, path=section.path)
    answers = open_mllm(describer, profile("offline").jobs, "cpu").generate([MllmInput("red", drawn(1))] * 2, 3, 2)
    assert len(answers) == 2 and answers[0] == answers[1] and len(answers[0]) == 2


def test_the_states_of_a_text_end_in_its_embedding(section):
    mllm = open_mllm(dataclasses.replace(section, dim=0), profile("offline").jobs, "cpu")
    states = mllm.text_states(["red", "red"])[0]
    assert np.allclose(F.normalize(states[-1], dim=0).numpy(), mllm.embed([MllmInput("red")])[0], atol=2e-5)


def test_a_checkpoint_of_another_architecture(tmp_path):
    write_t5(tmp_path, tiny_t5(T5S["google-t5/t5-large"]), torch.float32)
    wrong = dataclasses.replace(profile("offline").describer, path=str(tmp_path))
    with pytest.raises(
        ArtifactError, match="describer.path .*: a 't5' is no model of images and texts, such as"
    ) as found:
        open_mllm(wrong, profile("offline").jobs, "cpu")
    assert "\n" not in str(found.value)


def test_a_checkpoint_that_has_no_width_is_of_another_architecture(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    for section in (profile("offline").embedder, profile("offline").describer):
        wrong = dataclasses.replace(section, path=str(tmp_path))
        for jobs in (profile("offline").jobs, dataclasses.replace(profile("offline").jobs, engine="ray")):
            with pytest.raises(ArtifactError, match=r"path .*: a 'resnet' is no model of images and texts, such as"):
                open_mllm(wrong, jobs, "cpu")


def test_too_little_memory_is_said_with_both_numbers(section, monkeypatch):
    needed = checkpoint.weight_bytes(section)
    assert needed == sum(path.stat().st_size for path in checkpoint.Path(section.path).glob("*.safetensors")) > 0
    checkpoint.check_memory(section, needed)
    checkpoint.check_memory(section, needed / 2, 2)
    monkeypatch.setattr(checkpoint, "weight_bytes", lambda params: 146.8e9)
    with pytest.raises(ArtifactError, match=r"take 146.8 GB of GPU memory, and 84.0 GB are free$"):
        checkpoint.check_memory(section, 84e9)


def test_the_size_of_a_hubs_checkpoint_is_known_before_it_is_there():
    assert checkpoint.weight_bytes(profile("paper").embedder) > 1e11


def test_a_slot_is_what_the_processor_knows():
    class Llava:
        image_token = "<image>"

    assert checkpoint.image_slot(Llava()) == "<image>"
    assert checkpoint.image_slot(object()) == "<|vision_start|><|image_pad|><|vision_end|>"


def test_models_share_a_checkpoint_and_open_it_again_after_it_was_closed(section):
    jobs = profile("offline").jobs
    first, second = open_mllm(section, jobs, "cpu"), open_mllm(section, jobs, "cpu")
    assert first.model is second.model
    before = first.embed([MllmInput("red")])
    SLOT.close()
    assert np.array_equal(second.embed([MllmInput("red")]), before)
