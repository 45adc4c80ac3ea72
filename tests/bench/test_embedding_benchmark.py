"""bench/embedding.py on a few rows: the parts that need no vLLM."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench import bare_vllm, embedding
from bench.profiles import profile
from pipeline.artifacts import ShardSet, read_json
from pipeline.config import ParameterError
from pipeline.encoders.mllm.vllm_backend import Engine


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(arguments): the report after them."""
    monkeypatch.setattr(embedding, "OUT", tmp_path / "out.json")

    def call(*arguments):
        ended = CliRunner().invoke(embedding.app, list(arguments))
        assert ended.exit_code == 0, ended.output
        return read_json(tmp_path / "out.json")

    return call


def test_parts_are_added_to_one_report(run, tmp_path):
    run("reader", "--rows", "50", "--dim", "8", "--tokens", "3", "--width", "4", "--batch", "16", "--batches", "3")
    found = run("million", "--rows", "4100", "--dim", "8", "--folder", str(tmp_path / "vectors"))
    assert set(found) == {"reader", "million"} and str(tmp_path) not in json.dumps(found)
    reader = found["reader"]
    assert (
        reader["rows_per_second"]
        > reader["rows_per_second_first_opening_included"]
        > 0
        < reader["rows_per_second_cold"]
    )
    assert reader["rows_per_second"] > reader["rows_per_second_later_opening_included"] > 0
    assert reader["anonymous_memory_mib"]["peak"] >= reader["anonymous_memory_mib"]["before"] > 0
    assert found["million"]["rows"] == 4100 and found["million"]["peak_memory_mib"] > 0
    assert not (tmp_path / "vectors").exists()


def test_a_row_that_does_not_come_back_is_an_error(run, tmp_path, monkeypatch):
    monkeypatch.setattr(ShardSet, "shards", lambda self, columns=None: iter(()))
    ended = CliRunner().invoke(
        embedding.app, ["million", "--rows", "10", "--dim", "8", "--folder", str(tmp_path / "vectors")]
    )
    assert ended.exit_code == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *(["--way", way] for way in ("x", "0", "-1", "2+x", "2+-1")),
        *(["--vllm", given] for given in ("x", "[1]")),
        *([option, "0"] for option in ("--count", "--batch", "--side", "--try-count", "--rounds")),
        ["--words", "-3"],
        ["--bare-count", "-1"],
    ],
)
def test_a_wrong_option_is_named_before_any_engine_starts(wrong, monkeypatch):
    monkeypatch.setattr(embedding, "Comparison", None)
    ended = CliRunner().invoke(embedding.app, ["embed", *wrong])
    assert ended.exit_code == 2 and wrong[0] in ended.stderr, ended.output


def test_what_vllm_does_not_take_is_one_line(monkeypatch):
    def refuse(*_):
        raise ParameterError("embedder.vllm: unexpected keyword argument 'nonsense'")

    monkeypatch.setattr(embedding, "Comparison", refuse)
    ended = CliRunner().invoke(embedding.app, ["embed", "--vllm", '{"nonsense": 1}'])
    assert ended.exit_code == 1 and ended.output == "error: embedder.vllm: unexpected keyword argument 'nonsense'\n"


def test_images_are_all_different_and_the_same_every_time():
    first, again = bare_vllm.noise_images(3, 32), bare_vllm.noise_images(3, 32)
    assert first == again and len({row.key for row in first}) == 3
    long = bare_vllm.noise_images(3, 32, words=90)
    assert len({row.text for row in long}) == 3 and all(90 <= len(row.text.split()) < 95 for row in long)


def test_the_job_has_the_profiles_threads_and_bare_vllm_torchs_own(tmp_path, monkeypatch):
    """One short test of what a benchmark runs with: a report says which."""
    seen, before = {}, torch.get_num_threads()
    torch.set_num_threads(7)
    try:
        llm = _Llm()
        llm.embed = lambda prompts, use_tqdm: seen.update(bare=torch.get_num_threads())
        stand_in = SimpleNamespace(
            params=profile("offline").embedder, dim=4, _engine=lambda task: Engine(llm, None, lambda: None)
        )
        stand_in.embed = lambda inputs: seen.update(job=torch.get_num_threads()) or np.ones((len(inputs), 4))
        monkeypatch.setattr(bare_vllm, "open_engine", lambda *arguments: stand_in)
        work = bare_vllm.Workload(bare_vllm.EMBED, "", count=5, side=32, batch=2, tokens=0, vllm={})
        compared = bare_vllm.Comparison(work, bare_vllm.Preparation(1, 0), tmp_path)
        compared.job(compared.rows)
        assert seen == {"bare": 7, "job": profile("offline").runtime.threads} and torch.get_num_threads() == 7
    finally:
        torch.set_num_threads(before)


def test_the_random_model_has_the_3b_sizes(tmp_path):
    from transformers import AutoConfig, AutoProcessor

    bare_vllm.random_3b(tmp_path, 448)
    config, processor = AutoConfig.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert (config.text_config.num_hidden_layers, config.text_config.hidden_size, config.vision_config.depth) == (
        36,
        2048,
        32,
    )
    assert config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")


class _Llm:
    """Notes what a `vllm.LLM` is asked to embed."""

    def __init__(self):
        self.asked: list[list[dict]] = []

    def embed(self, prompts, use_tqdm):
        self.asked.append(prompts)


def test_bare_vllm_gets_every_row_as_a_prompt(tmp_path, monkeypatch):
    llm = _Llm()
    stand_in = SimpleNamespace(params=profile("offline").embedder, _engine=lambda task: Engine(llm, None, lambda: None))
    monkeypatch.setattr(bare_vllm, "open_engine", lambda *arguments: stand_in)
    work = bare_vllm.Workload(bare_vllm.EMBED, "", count=5, side=32, batch=2, tokens=0, vllm={})
    compared = bare_vllm.Comparison(work, bare_vllm.Preparation(1, 0), tmp_path)
    compared.bare(compared.rows)
    assert [len(prompts) for prompts in llm.asked] == [5, 5], "the warm-up's, and the rows"
    assert all(
        "<|image_pad|>" in one["prompt"] and one["multi_modal_data"]["image"].size == (32, 32) for one in llm.asked[1]
    )
