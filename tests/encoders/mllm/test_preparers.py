"""The processes that prepare: what they see. What they make is tested with vLLM, which tells it apart from its own."""

from __future__ import annotations

import os

import pytest

from pipeline.encoders.mllm.preparers import GPUS, Preparers


@pytest.mark.parametrize("seen", [None, "0,1"])
def test_they_see_no_gpu_and_this_process_does(monkeypatch, seen):
    monkeypatch.delenv(GPUS, raising=False)
    if seen:
        monkeypatch.setenv(GPUS, seen)
    preparers = Preparers(2)
    try:
        assert preparers._pool.submit(os.getenv, GPUS).result() == ""
        assert os.environ.get(GPUS) == seen
    finally:
        preparers.close()
