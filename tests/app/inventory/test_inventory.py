"""What a profile needs, and what `cir check` says of a machine that lacks it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from pipeline.app.cli.main import app
from pipeline.app.inventory import checks, needs
from tests.sections import composed, profile

ROOT = Path(__file__).parents[3]
T5 = "city96/t5-v1_1-xxl-encoder-bf16"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, in a folder without data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # fetching sets it; this puts it back
    return tmp_path / "hub"


def cir(*arguments):
    return CliRunner().invoke(app, [*arguments, "--conf", str(ROOT / "conf")])


def found(name="paper"):
    return {need.name: need for need in needs.needs(profile(name))}


def test_a_bare_machine_lacks_all_of_the_paper_profile_and_every_line_says_what(cache):
    every = found()
    assert {T5, "cc3m", "cc12m", "journeydb", "sa1b", "hqedit", "fashioniq", "cirr", "circo", "genecis"} <= set(every)
    assert not any(need.there for need in every.values())
    result = cir("check", "--profile", "paper")
    assert result.exit_code == 1 and result.stdout.splitlines()[-1].endswith("problems")
    lines = result.stdout.splitlines()
    for need in every.values():
        said = any(str(need.place) in line and need.used_by in line for line in lines)
        assert said != need.optional, need.name


def test_a_checkpoint_is_there_when_every_file_of_its_index_is(cache):
    need = found()[T5]
    assert need.revision in str(need.place) and "Apache-2.0" in need.licence and need.size > 9e9
    need.place.mkdir(parents=True)
    (need.place / "config.json").write_text("{}")
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": files[0], "b": files[1]}}
    (need.place / "model.safetensors.index.json").write_text(json.dumps(index))
    (need.place / files[0]).write_bytes(b"0")
    assert not found()[T5].there
    (need.place / files[1]).write_bytes(b"0")
    assert found()[T5].there and found()[T5].size < 1000


def test_the_default_lacks_nothing_where_the_project_is(monkeypatch):
    monkeypatch.chdir(ROOT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert list(checks.problems(profile("offline"), port)) == []
    listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    assert {row["name"] for row in listed} == {"models/backbones/mllm", "models/backbones/clip"}
    assert all(row["there"] for row in listed)


@pytest.mark.parametrize("name", ["lab", "paper"])
def test_a_large_profile_at_the_scale_of_emoji_lacks_nothing_and_needs_no_gpu(monkeypatch, name):
    monkeypatch.chdir(ROOT)
    params = composed(f"profile={name}", "embedder=emoji", "diffcomp=emoji", "+scale=emoji")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert list(checks.problems(params, port)) == []
    own = profile(name)
    assert (params.profile, params.embedder.targets, params.control.signal) == (name, "fused", "fused")
    assert params.prior.diffusion == own.prior.diffusion and params.prior.channels == own.prior.channels
    assert params.captions.long_share == own.captions.long_share and params.diffcomp_variants == own.diffcomp_variants
    assert params.retrieve.guidance_scale == own.retrieve.guidance_scale


def test_a_port_in_use_is_said(monkeypatch):
    monkeypatch.chdir(ROOT)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert [line for line in checks.problems(profile("offline"), port) if f"port {port} of the page" in line]


def test_too_little_gpu_memory_is_said_with_both_numbers(cache, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=24 * 10**9))
    lines = list(checks.problems(profile("paper")))
    large = [line for line in lines if "needs at least" in line]
    assert large and all("a GPU has 24 GB" in line for line in large)
    assert any("tensor_parallel_size: 4 GPUs are wanted, there are 1" in line for line in lines)


def test_fetching_asks_for_the_pinned_revision_and_for_no_pickles(cache, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *name, **more: asked.append((*name, more)) or "here"
    )
    result = CliRunner().invoke(app, ["models", "--conf", str(ROOT / "conf"), "fetch", "--profile", "paper"])
    assert result.exit_code == 0 and f"{T5}: here" in result.stdout
    revisions = {name: more["revision"] for name, more in asked}
    assert revisions[T5] == found()[T5].revision
    assert not any("bin" in pattern for _, more in asked for pattern in more["allow_patterns"])
    [clip] = [more["allow_patterns"] for name, more in asked if name.startswith("timm/")]
    assert "open_clip*.safetensors" in clip and "*.safetensors" not in clip, "the hub has them for transformers, too"


def test_models_that_come_with_the_repository_have_its_licence(cache):
    shipped = [need for need in needs.needs(profile("offline")) if need.name.startswith("models/backbones/")]
    assert {need.name for need in shipped} >= {"models/backbones/mllm", "models/backbones/clip"}
    assert all(need.licence.startswith("Apache-2.0") for need in shipped)
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")


@pytest.mark.parametrize(("preset", "licence"), [("clip-g", "MIT"), ("blip", "BSD-3-Clause")])
def test_diffcomps_other_backbones_are_needed_with_revision_size_and_licence(cache, preset, licence):
    [need] = [
        need for need in needs.needs(composed("profile=paper", f"diffcomp={preset}")) if "diffcomp" in need.used_by
    ]
    assert need.licence == licence and need.size > 1e9 and not need.there
    assert need.hub == {"clip-g": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "blip": need.name}[preset]
    assert (preset == "blip") == (len(need.revision) == 40)


def test_a_hub_that_cannot_be_reached_is_one_line(cache, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    result = CliRunner().invoke(app, ["models", "--conf", str(ROOT / "conf"), "fetch", "--profile", "paper"])
    assert result.exit_code == 1 and "cannot be fetched (no route)" in result.output


def run(*arguments):
    return CliRunner().invoke(app, [*arguments, "--conf", str(ROOT / "conf")])


def test_a_parameter_is_changed_before_it_is_listed_and_checked(cache):
    listed = run("models", "--profile", "lab", "-S", "embedder=qwen2.5-vl-3b", "--json")
    embedder = next(need for need in json.loads(listed.stdout) if "embedder.path" in need["used_by"])
    assert embedder["name"] == "Qwen/Qwen2.5-VL-3B-Instruct"
    checked = run("check", "--profile", "lab", "--set-param", "embedder=qwen2.5-vl-3b")
    assert checked.exit_code == 1 and "embedder.path, " in checked.stdout and "gme-" not in checked.stdout
    assert "gme-" in run("check", "--profile", "lab").stdout


def test_fetching_takes_changes_before_and_after_its_name(cache, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or "here")
    change = ["--profile", "lab", "-S", "embedder=qwen3-vl-embedding-2b"]
    for words in (["fetch", *change], [*change, "fetch"]):
        result = CliRunner().invoke(app, ["models", "--conf", str(ROOT / "conf"), *words])
        assert result.exit_code == 0, result.output
        assert "Qwen/Qwen3-VL-Embedding-2B" in asked and not any("gme" in name for name in asked)
        asked.clear()


def test_a_model_that_verifies_answers_is_needed_where_a_stage_asks_it(cache):
    reranker = ["--profile", "lab", "-S", "reranker=qwen3-vl-reranker-2b"]
    verified = [*reranker, "-S", "rerank.methods=[fusion_diff]"]
    assert "Reranker" not in run("models", *reranker).stdout + run("check", *reranker).stdout
    [need] = [need for need in json.loads(run("models", *verified, "--json").stdout) if "Reranker" in need["name"]]
    assert need["used_by"] == "reranker.path" and need["licence"] == "Apache-2.0" and not need["there"]
    lines = run("check", *verified).stdout.splitlines()
    assert any(line.startswith("reranker.path: Qwen/Qwen3-VL-Reranker-2B is not in ") for line in lines)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("embedder=nosuch", "Could not find 'embedder/nosuch'"),
        ("embedder", "embedder"),
        ("embedder.nosuch=1", "embedder.nosuch"),
        ("embedder.vllm.tensor_parallel_size=x", "embedder.vllm.tensor_parallel_size: 'x' is no number of GPUs"),
        ("embedder.vllm.tensor_parallel_size=0", "embedder.vllm.tensor_parallel_size: 0 is no number of GPUs"),
        ("embedder.batch_size=0", "embedder.batch_size"),
        ("profile=paper", "-S profile=paper: a profile is chosen with --profile"),
    ],
)
def test_a_wrong_change_is_one_line_that_names_it(change, said):
    for command in ("models", "check"):
        result = run(command, "--profile", "lab", "-S", change)
        assert result.exit_code == 1 and said in result.stderr and result.stderr.count("\n") == 1, result.stderr
        assert result.stderr.startswith("error: ") and "CIR_DEBUG" not in result.stderr


@pytest.mark.parametrize("content", [b"embedder: {dim: [", b"\xff\xfeembedder"], ids=["no YAML", "no UTF-8"])
def test_a_profile_that_cannot_be_read_is_one_line_that_names_it(tmp_path, content):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/profile/lab.yaml").write_bytes(content)
    result = CliRunner().invoke(app, ["check", "--profile", "lab", "--conf", str(tmp_path / "conf")])
    assert result.exit_code == 1 and result.stderr.startswith("error: profile lab: ")
    assert result.stderr.count("\n") == 1 and "CIR_DEBUG" not in result.stderr


def test_the_embedder_has_to_be_as_wide_as_its_dimension_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = run("check", "-S", "embedder.dim=4096")
    assert "embedder.dim 4096 exceeds the 256 dimensions of models/backbones/mllm" in result.stdout.splitlines()


def test_a_missing_package_names_all_that_want_it_and_how_it_is_installed(cache, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else object())
    [line] = [line for line in run("check", "--profile", "lab").stdout.splitlines() if "vllm" in line]
    assert line.startswith("embedder.backend, describer.backend, captioner.backend: the package vllm")
    assert "pip install -e '.[gpu]'" in line
