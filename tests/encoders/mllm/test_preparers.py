"""The processes that prepare: what they see, and how values travel. What they make is tested with vLLM."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import EmbedderParams, ParameterError
from pipeline.encoders.mllm import preparers as module
from pipeline.encoders.mllm.preparers import GPUS, Preparers, pack, unpack
from tests.sections import section


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


def killed(folder: str, arguments: str, given: module.Packed) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def answering(folder: str, arguments: str, given: module.Packed) -> module.Packed:
    return pack([arguments], folder)


def test_after_one_was_killed_an_error_says_so_and_new_ones_work(monkeypatch):
    preparers, params = Preparers(2), section(EmbedderParams)
    try:
        monkeypatch.setattr(module, "_render_each", killed)
        with pytest.raises(ParameterError, match=r"jobs.workers: a process .* was ended from outside"):
            preparers.render("{}", params, [], "slot")
        monkeypatch.setattr(module, "_render_each", answering)
        assert preparers.render("{}", params, [], "slot") == ["{}"]
    finally:
        preparers.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no /proc")
def test_values_travel_unchanged_and_hold_neither_files_nor_descriptors(tmp_path):
    image = Image.fromarray(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))
    values = {
        "tensor": torch.arange(11, dtype=torch.bfloat16).reshape(1, 11),
        "empty": torch.zeros(0, 3),
        "image": image,
        "array": np.arange(3, dtype=np.int64),
        "error": ValueError("why"),
    }
    before = descriptors()
    found = [unpack(pack(values, str(tmp_path))) for _ in range(20)]
    assert descriptors() == before and not list(tmp_path.iterdir())
    for one in found:
        assert torch.equal(one["tensor"], values["tensor"]) and one["tensor"].dtype is torch.bfloat16
        assert one["empty"].shape == (0, 3) and one["image"].tobytes() == image.tobytes()
        assert one["array"].tolist() == [0, 1, 2] and str(one["error"]) == "why"
    one["tensor"] += 1  # the pages are this process' own
    assert torch.equal(found[0]["tensor"], values["tensor"])
    assert pack({"a": 1, "b": torch.zeros(0)}, str(tmp_path))[1] == "" and not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_does_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ALIGNED", 0)  # the padding of the first array divides by it
    with pytest.raises(ZeroDivisionError):
        pack(torch.ones(3), str(tmp_path))
    assert not list(tmp_path.iterdir())
