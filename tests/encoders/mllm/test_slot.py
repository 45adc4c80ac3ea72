"""Who is open: on a GPU one model, elsewhere whoever is held; and a closed model's memory is given back."""

import dataclasses
import gc
import weakref

import pytest
import torch

from bench.rehearsal.sizes import MLLMS, tiny_mllm
from bench.rehearsal.weights import write_mllm
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.open import open_mllm
from pipeline.encoders.mllm.slot import ModelSlot, OpenModel
from tests.sections import profile

TRIES = 4


@pytest.fixture
def slot():
    return ModelSlot()


def test_who_names_the_same_shares_one_model(slot):
    first = slot.open("a", OpenModel, alone=True)
    assert slot.open("a", OpenModel, alone=True) is first and not first.closed


def test_alone_closes_the_one_before(slot):
    first = slot.open("a", OpenModel, alone=True)
    second = slot.open("b", OpenModel, alone=True)
    assert first.closed and not second.closed
    assert slot.open("a", OpenModel, alone=True) is not first and second.closed


def test_elsewhere_both_stay(slot):
    first, second = (slot.open(key, OpenModel, alone=False) for key in "ab")
    assert not first.closed and not second.closed
    slot.close()
    assert first.closed and second.closed


def test_nobody_holds_it_nobody_keeps_it(slot):
    first = weakref.ref(slot.open("a", OpenModel, alone=False))
    gc.collect()
    assert first() is None


def test_the_one_before_is_closed_before_the_next_one_is_loaded(slot):
    """Both at once would need the memory of both."""
    first = slot.open("a", OpenModel, alone=True)

    def load():
        assert first.closed
        return OpenModel()

    slot.open("b", load, alone=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_two_sections_take_turns_on_a_gpu(tmp_path):
    """However often they change, no more memory is held than for one of them."""
    jobs, sections = profile("offline").jobs, []
    for number, name in enumerate(("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen3-VL-2B-Instruct")):
        folder = tmp_path / str(number)
        write_mllm(folder, tiny_mllm(MLLMS[name]), torch.float32)
        sections.append(dataclasses.replace(profile("offline").embedder, path=str(folder)))
    mllms = [open_mllm(section, jobs, "cuda") for section in sections]
    before, held = torch.cuda.memory_allocated(), []  # other tests leave some
    for _ in range(TRIES):
        for mllm in mllms:
            mllm.embed([MllmInput("red")])
            held.append(torch.cuda.memory_allocated() - before)
    assert held[2::2] == [held[2]] * (TRIES - 1) and held[3::2] == [held[3]] * (TRIES - 1)
    for mllm in mllms:
        mllm.close()
    assert torch.cuda.memory_allocated() - before < min(held) / 10
