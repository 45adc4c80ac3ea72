"""The encoding job on a local Ray of two processes, against the job in this process: `make test-vllm` installs Ray."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch

from pipeline.artifacts import ShardSet
from pipeline.config import JobsParams, ParameterError, PriorDataParams
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.ray_engine import SliceWorker
from pipeline.encoders.embedding.readers import PairReader, training_rows
from pipeline.encoders.embedding.rows import EncoderRow, EncodingError, decode
from pipeline.encoders.embedding.slices import encode_slices
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.encoders.mllm.open import open_mllm
from tests.sections import section

IDS = [f"i{n:02d}" for n in range(26)]


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine, ended afterwards."""
    ray = pytest.importorskip(
        "ray", reason="Ray is not installed here; `make test-vllm` makes an environment with it and runs these tests"
    )
    yield ray
    ray.shutdown()


@pytest.fixture
def run(make, tmp_path, tiny_params):
    """run(folder, engine, decode): the job over 26 images, two of which cannot be read, in slices of six."""
    images = make.images(tmp_path / "images", IDS, rows_per_shard=4)
    reader = PairReader(images, make.pairs(tmp_path / "pairs", IDS), training_rows(section(PriorDataParams)))

    def call(folder, engine, decode_row=None, share=0.1):
        params = dataclasses.replace(tiny_params, batch_size=4)
        jobs = section(JobsParams, engine=engine, replicas=2, max_rejected_share=share)
        job = embedding_job(open_mllm(params, jobs, "cpu"), decode_row or damaged)
        options = JobOptions.from_params(params, jobs, rows_per_shard=6)
        return run_job(reader, job, tmp_path / folder, {"of": "test"}, options)

    return call


def damaged(row: EncoderRow):
    return decode(dataclasses.replace(row, image=row.image[:50]) if row.image_id in ("i03", "i20") else row)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_workers_make_the_same_shards_even_when_one_is_killed(ray, run, tmp_path):
    run("here", "local")
    assert ShardSet.open(tmp_path / "here").rows == 24

    def once(row):  # nested, so that it travels to the workers by value, as everything here does
        import os
        from pathlib import Path

        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        if row.image_id == "i14" and not os.path.exists(marker):
            Path(marker).touch()
            os._exit(1)
        return look(row)

    def look(row):
        import dataclasses

        from pipeline.encoders.embedding.rows import decode

        return decode(dataclasses.replace(row, image=row.image[:50]) if row.image_id in ("i03", "i20") else row)

    marker, log = str(tmp_path / "killed"), str(tmp_path / "processes")
    run("there", "ray", once)
    processes = set(Path(log).read_text().split())
    assert os.path.exists(marker) and len(processes) >= 3 and str(os.getpid()) not in processes, (
        "two workers and a killed one's successor"
    )
    assert contents(tmp_path / "there") == contents(tmp_path / "here")

    whole = contents(tmp_path / "there")
    (tmp_path / "there" / "manifest.json").unlink()
    (tmp_path / "there" / "part-00003.parquet").unlink()
    run("there", "ray", look)
    assert contents(tmp_path / "there") == whole

    with pytest.raises(EncodingError, match="i03.*1 of 26 rows are rejected"):
        run("strict", "ray", look, share=0.0)


def test_a_worker_encodes_a_slice_as_this_process_does(make, tiny_params, tiny_mllm):
    """What Ray calls in another process, called here: no Ray is needed."""
    rows = make.rows(17)
    rows[9] = dataclasses.replace(rows[9], image=b"no image")
    reader, options = make.reader(rows), JobOptions(3, rows_per_shard=7, max_rejected_share=0.5)
    whole = list(encode_slices(reader, embedding_job(tiny_mllm), 0, options))
    job = embedding_job(open_mllm(tiny_params, section(JobsParams, engine="ray"), "cpu"))
    worker = SliceWorker(cloudpickle.dumps((reader, job, torch.get_num_threads(), True)), options)
    answer = worker({"start": np.array([7, 14])})
    found = [cloudpickle.loads(encoded) for encoded in answer["slice"]]
    assert [(one.start, one.rows, len(one.rejected)) for one in found] == [(7, 7, 1), (14, 3, 0)]
    assert found == whole[1:]


def test_without_ray_one_line_says_how_to_install_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParameterError, match=r"jobs.engine: ray cannot be imported.*\[ray\]"):
        run("there", "ray")
