"""How an engine begins and ends, with a stand-in for vLLM."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.config import ParameterError, load_params
from pipeline.encoders.mllm.slot import ModelSlot
from pipeline.encoders.mllm.vllm_backend import EMBED, VllmMllm

PARAMS = load_params().embedder


@pytest.fixture
def engine_of(monkeypatch):
    """`VllmMllm` over a stand-in whose `LLM` is a function."""

    monkeypatch.setattr("pipeline.encoders.mllm.vllm_backend.SLOT", ModelSlot())  # other tests' engines are not shared

    def make(llm, processes=0):
        monkeypatch.setitem(
            sys.modules,
            "vllm",
            SimpleNamespace(LLM=llm, distributed=SimpleNamespace(cleanup_dist_env_and_memory=lambda: None)),
        )
        return VllmMllm(PARAMS, 1, processes)

    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    yield make
    torch.set_deterministic_debug_mode(before)


def a_model(**_):
    return SimpleNamespace(llm_engine=SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: None)))


def test_an_engine_compiles_without_the_deterministic_switch(engine_of):
    seen = []
    mllm = engine_of(lambda **arguments: [seen.append(torch.are_deterministic_algorithms_enabled()), a_model()][1])
    mllm._engine(EMBED)
    assert seen == [False] and torch.are_deterministic_algorithms_enabled()
    mllm.close()


def test_a_failed_start_leaves_the_switch_and_no_process(engine_of, monkeypatch):
    made = []
    monkeypatch.setattr(
        "pipeline.encoders.mllm.vllm_backend.Preparers",
        lambda count: made.append(SimpleNamespace(make_ready=lambda _: None, close=lambda: made.clear())) or made[-1],
    )

    def fails(**_):
        raise TypeError("an unknown argument")

    with pytest.raises(ParameterError, match=r"embedder\.vllm: an unknown argument"):
        engine_of(fails, processes=2)._engine(EMBED)
    assert torch.are_deterministic_algorithms_enabled() and not made


def test_processes_end_with_their_engine(engine_of):
    mllm = engine_of(a_model, processes=1)
    preparers = mllm._engine(EMBED).preparers
    folder = preparers._folder.name
    mllm.prepare_in(2)
    assert mllm._engine(EMBED).preparers.count == 2
    with pytest.raises(RuntimeError, match="shutdown"):
        preparers._pool.submit(int)
    second = mllm._engine(EMBED).preparers
    mllm.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        second._pool.submit(int)
    assert not Path(folder).exists()
