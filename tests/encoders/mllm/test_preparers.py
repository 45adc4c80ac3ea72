"""The processes that prepare: what they see, and how values travel. What they make is tested with vLLM."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.artifacts import StorageError
from pipeline.config import EmbedderParams, ParameterError
from pipeline.encoders.mllm import preparers as module
from pipeline.encoders.mllm.interface import MllmInput
from pipeline.encoders.mllm.preparers import GPUS, Preparers, pack, unpack
from pipeline.errors import as_one_line
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


def killed_as_it_begins(arguments: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_that_was_killed_as_it_began_holds_up_nothing(monkeypatch):
    preparers, params = Preparers(2), section(EmbedderParams)
    monkeypatch.setattr(module, "_make", killed_as_it_begins)
    monkeypatch.setattr(module, "_render_each", answering)
    preparers.make_ready("{}")
    try:
        deadline = time.monotonic() + 60
        while (found := ask(preparers, params)) != ["{}"]:
            assert isinstance(found, ParameterError) and time.monotonic() < deadline
    finally:
        preparers.close()


def ask(preparers: Preparers, params: EmbedderParams) -> object:
    try:
        return preparers.render("{}", params, [], "slot")
    except ParameterError as error:
        return error


def test_an_input_that_nobody_took_leaves_no_file(monkeypatch):
    preparers, params = Preparers(1), section(EmbedderParams)
    image = MllmInput("a", Image.new("RGB", (9, 9)))
    monkeypatch.setattr(module, "_render_each", killed)
    try:
        with pytest.raises(ParameterError, match=r"jobs.workers"):
            preparers.render("{}", params, [image], "slot")
        assert not os.listdir(preparers._folder.name)
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


def test_a_full_disk_is_one_line_that_names_the_folder(tmp_path, monkeypatch):
    def full(size: int) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write says it, without a name

    monkeypatch.setattr(module, "bytes", full, raising=False)  # the padding of the first array
    with pytest.raises(StorageError) as found:
        pack(torch.ones(3), str(tmp_path))
    assert as_one_line(pickle.loads(pickle.dumps(found.value))) == (
        f"{tmp_path}: no room for 12 bytes of prepared inputs; a smaller batch_size or max_side takes less"
    )
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_does_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ALIGNED", 0)  # the padding of the first array divides by it
    with pytest.raises(ZeroDivisionError):
        pack(torch.ones(3), str(tmp_path))
    assert not list(tmp_path.iterdir())
