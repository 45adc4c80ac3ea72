"""A model that every process opens for itself: only parameters travel, and it is opened once."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from pipeline.artifacts import ArtifactError
from pipeline.config import EmbedderParams, JobsParams, MllmParams, ParameterError
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.replicated import ReplicatedMllm
from pipeline.encoders.mllm.transformers_backend import TransformersMllm
from tests.sections import section

OPENED: list[str] = []
JOBS = section(JobsParams)


def open_counted(params: MllmParams, jobs: JobsParams, device: str) -> TransformersMllm:
    OPENED.append(device)
    return TransformersMllm(params, device)


def test_it_is_opened_when_first_used_and_once_after_it_has_travelled(tiny_params, tiny_mllm):
    OPENED.clear()
    here = ReplicatedMllm(tiny_params, JOBS, "cpu", open_counted)
    assert here.dim == tiny_mllm.dim and not OPENED
    inputs = [MllmInput("a red ball"), MllmInput("make it black")]
    np.testing.assert_array_equal(here.embed(inputs), tiny_mllm.embed(inputs))
    travelled = pickle.dumps(here)
    assert len(travelled) < 10_000, "the weights stay here"
    there = pickle.loads(travelled)
    for _ in range(2):
        np.testing.assert_array_equal(there.embed(inputs), tiny_mllm.embed(inputs))
    assert OPENED == ["cpu", "cpu"]


def test_a_backend_that_prepares_nothing_leaves_an_input_as_it_is(tiny_params):
    one = MllmInput("a red ball")
    assert ReplicatedMllm(tiny_params, JOBS, "cpu", open_counted).prepare([one], "embed") == [one]


def test_a_dimension_beyond_the_models_is_an_error_before_any_weight_is_loaded(tiny_params, monkeypatch):
    monkeypatch.setattr("pipeline.encoders.mllm.transformers_backend.LoadedModel", None)
    wide = dataclasses.replace(tiny_params, dim=9_999)
    for opened in (lambda: ReplicatedMllm(wide, JOBS, "cpu", open_counted), lambda: TransformersMllm(wide, "cpu")):
        with pytest.raises(ParameterError, match=r"^embedder.dim 9999 exceeds the \d+ dimensions of "):
            opened()


def test_a_model_that_is_missing_is_an_error_before_any_worker_starts(tmp_path):
    with pytest.raises(ArtifactError, match="embedder.path.*cannot be loaded"):
        ReplicatedMllm(section(EmbedderParams, path=str(tmp_path)), JOBS, "cpu", open_counted)
