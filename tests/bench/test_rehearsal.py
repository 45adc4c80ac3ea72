"""The rehearsal on a CPU: every stage of the graph, with models of the profile's classes and data in its layouts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from bench.rehearsal.__main__ import needs, outputs, together
from bench.rehearsal.card import hold_back, share_out
from bench.rehearsal.compose import FULL
from bench.rehearsal.measure import BAR, Bar, run
from bench.rehearsal.sizes import MLLMS, T5S, tiny_mllm, tiny_t5
from bench.rehearsal.table import fill, table
from bench.rehearsal.weights import write_mllm, write_t5
from bench.rehearsal.whole import whole_profile
from bench.rehearsal.words import caption, qwen_tokenizer
from pipeline.config import load_profile

ROOT = Path(__file__).parents[2]
PROFILES = [name for name in ("lab", "paper") if (ROOT / f"conf/profile/{name}.yaml").is_file()]
PUBLISHED = {
    "Qwen/Qwen2-VL-2B-Instruct": 2.21,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3.75,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8.29,
    "Qwen/Qwen2.5-VL-72B-Instruct": 73.41,
    "Qwen/Qwen3-VL-2B-Instruct": 2.13,
}
"""Billions of parameters, as the hub counts them."""


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_every_stage_of_a_profile_runs_on_a_cpu(tmp_path, profile):
    command = [sys.executable, "-m", "bench.rehearsal", "--profile", profile, "--tiny", "--scratch", str(tmp_path)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "report.json")], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    entry = json.loads((tmp_path / "report.json").read_text())[profile]
    assert not any("error" in facts for facts in entry["stages"].values())
    assert set(entry["whole"]["stages"]) == set(entry["stages"]) and entry["whole"]["slowest"] in entry["stages"]
    assert entry["whole"]["hours"] > 0 and entry["whole"]["terabytes"] > 0
    assert len(list((tmp_path / "reports/tables").iterdir())) > 0


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_sizes_are_the_published_ones(name, billions):
    sizes = MLLMS[name]
    values = {"text_config": sizes.text, "vision_config": sizes.vision, "tie_word_embeddings": sizes.tied}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(sizes.kind, **values))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.parametrize("name", ["Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "Qwen/Qwen3-VL-Embedding-2B"])
def test_a_written_model_loads_as_its_class_with_every_weight(tmp_path, name):
    sizes = tiny_mllm(MLLMS[name])
    facts = write_mllm(tmp_path, sizes, torch.float32)
    model, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert model.config.model_type == sizes.kind and not any(info[key] for key in ("missing_keys", "unexpected_keys"))
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["parameters"]
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.convert_tokens_to_ids("<|image_pad|>") == 151655
    written = (tmp_path / "model.safetensors").stat().st_mtime_ns
    write_mllm(tmp_path, sizes, torch.float32)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == written, "it was there already"
    torch.rand(7)  # what was drawn before does not count
    write_mllm(tmp_path / "again", sizes, torch.float32)
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_a_caption_has_a_token_a_word(tmp_path):
    import random

    text = caption(random.Random(0), 12)
    assert len(qwen_tokenizer().tokenize(text)) == len(text.split()) >= 12
    write_t5(tmp_path, tiny_t5(T5S["google/t5-v1_1-xxl"]), torch.float32)
    states = AutoTokenizer.from_pretrained(tmp_path)([text])["input_ids"][0]
    assert len(states) == len(text.split()) + 1


def test_a_failing_command_is_noted_with_its_last_words_and_its_progress():
    code = (
        "from tqdm import tqdm; import time; [time.sleep(0.1) for _ in tqdm(range(5), 'rows')]; raise SystemExit('bad')"
    )
    facts = run(f'python -c "{code}"', Path.cwd(), {}, 60)
    assert facts["error"].endswith("bad") and facts["bars"]["rows"]["rows"] == 5
    assert 4 < facts["bars"]["rows"]["rows_per_second"] < 11
    assert facts["peak_host_gib"] > 0


def test_bars_of_an_engine_s_start_are_no_work_of_the_stage():
    code = (
        "from tqdm import tqdm; import time; "
        "[time.sleep(0.05) for name in ('Capturing CUDA graphs (decode, FULL)', 'rows') for _ in tqdm(range(5), name)]"
    )
    assert set(run(f'python -c "{code}"', Path.cwd(), {}, 60)["bars"]) == {"rows"}


def test_a_killed_command_says_by_which_signal():
    facts = run('python -c "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"', Path.cwd(), {}, 60)
    assert facts["error"].startswith("killed by signal 9")


def test_a_smaller_card_scales_what_vllm_takes(monkeypatch):
    """0.5 of 80 GiB are 40 of 160; a section that says nothing takes 0.9."""
    sections = [{"vllm": {"gpu_memory_utilization": 0.5, "tensor_parallel_size": 1}}, {"vllm": {}}]
    share_out(sections, 0.5)
    assert sections[0]["vllm"] == {"gpu_memory_utilization": 0.25, "tensor_parallel_size": 1}
    assert sections[1]["vllm"] == {"gpu_memory_utilization": 0.45}
    share_out(sections, 1.0)
    assert sections[1]["vllm"] == {"gpu_memory_utilization": 0.45}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (60 * 2**30, 140 * 2**30))
    with pytest.raises(ValueError, match=r"--card: 80 GiB, and 60.0 GiB"):
        hold_back(80)
    assert hold_back(0) == (None, 1.0)


def test_a_stage_runs_again_after_those_that_it_depends_on():
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert needs(graph["retrieve"], set(outputs(graph["build_index"])))
    assert needs(graph["build_index"], {"data/gallery"}) and not needs(graph["train_prior"], {"data/gallery"})
    assert needs({"deps": ["data/triplets"]}, {"data/triplets/sampled"}) and not needs(
        {"deps": ["data/a"]}, {"data/ab"}
    )


def test_a_stage_that_failed_and_went_on_took_both_its_times():
    sizes = {"peak_gpu_gib": 3.0, "peak_host_gib": 1.0, "largest_process_gib": 1.0}
    failed = {"seconds": 5.0, "bars": {"first": {"rows": 8}}, "error": "full", **sizes}
    facts = {"seconds": 2.0, "bars": {"second": {"rows": 4}}, "bytes": 7, **sizes, "peak_gpu_gib": 2.0}
    both = together(failed, facts)
    assert both["seconds"] == 7.0 and set(both["bars"]) == {"first", "second"} and both["peak_gpu_gib"] == 3.0
    assert "error" not in both and both["bytes"] == 7
    assert together({"error": ""}, facts) == facts == together({"seconds": 1.0, "bars": {}}, facts)


def test_what_runs_too_long_is_ended():
    facts = run('python -c "import time; time.sleep(60)"', Path.cwd(), {}, 0.5)
    assert "ended after" in facts["error"] and facts["seconds"] < 20


def test_the_steady_rate_leaves_out_what_goes_before_the_first_rows():
    assert BAR.match("data/fused/pairs:  50%|#####     | 50/100 [00:10<00:10,  5.00row/s]")["done"] == "50"
    facts = Bar([(0.0, 0, 100), (40.0, 10, 100), (49.0, 100, 100)]).facts()
    assert facts["rows_per_second"] == 10.0 and facts["start_up_seconds"] == 39.0


def test_a_bar_that_begins_anew_counts_all_its_parts():
    """16 queries of each of two benchmarks: 2 + 4 seconds, without what passed between them."""
    facts = Bar([(10.0, 0, 16), (12.0, 16, 16), (50.0, 0, 16), (54.0, 16, 16)]).facts()
    assert (
        facts["rows"] == 32 and facts["seconds"] == 6.0 and facts["rows_per_second"] == pytest.approx(32 / 6, abs=1e-3)
    )


def test_a_bar_with_another_number_of_rows_is_another_part():
    """16 queries of two benchmarks, seen when they were done, and 1,024 of a third: 256 more in each 2 seconds."""
    seen = [(10.0, 16, 16), (50.0, 16, 16), *((50.0 + 2 * part, 256 * part, 1024) for part in range(1, 5))]
    assert Bar(seen).facts()["rows_per_second"] == 128.0
    assert Bar(seen).facts()["of"] == 16 + 1024


def test_rows_that_were_done_when_a_bar_was_first_seen_take_their_time_too():
    """1,232 queries at 32 a second: 38.5 s of the stage's 50, though the bar was first seen after 720 of them."""
    bar = Bar([(10.0, 720, 1232), (26.0, 1232, 1232)]).facts()
    assert (bar["rows"], bar["of"], bar["rows_per_second"]) == (512, 1232, 32.0)
    queries = 12_032 + 8_329 + 1_020 + 8_000
    for seen in (
        bar,
        {"rows": 512, "of": 1024, "rows_per_second": 32.0},
    ):  # the others' bars were too short to be drawn
        entry = {"stages": {"retrieve": {"seconds": 50.0, "bytes": 1, "bars": {"sampling": seen}}}, "models": {}}
        whole = whole_profile(load_profile("lab", ROOT / "conf"), entry, FULL, ["retrieve"])["whole"]
        assert whole["stages"]["retrieve"]["hours"] == pytest.approx((11.5 + queries / 32) / 3600, abs=0.006)
    entry["stages"]["retrieve"]["bars"] = {"drawn once": {"rows": 0, "of": 16, "rows_per_second": 0.0}}
    whole = whole_profile(load_profile("lab", ROOT / "conf"), entry, FULL, ["retrieve"])["whole"]
    assert whole["stages"]["retrieve"]["hours"] == pytest.approx(50 / 3600, abs=0.006), "its start alone"


def test_one_gallery_of_several_batches_stands_for_all():
    """1,536 of CIRCO's 123,403 images took 10 s; what a gallery of one batch took is start-up."""
    bars = {"data/gallery/circo_test/fused": 10.0, "data/gallery/cirr_val/fused": 3.0}
    facts = {
        "seconds": 20.0,
        "bytes": 1,
        "bars": {name: {"rows": 100, "rows_per_second": 100 / s} for name, s in bars.items()},
    }
    params = load_profile("lab", ROOT / "conf")
    whole = whole_profile(params, {"stages": {"embed_gallery": facts}, "models": {}}, FULL, ["embed_gallery"])["whole"]
    images = 15_536 + 4_613 + 123_403 + 20_000
    assert whole["hours"] == pytest.approx((7.0 + 10.0 * images / 1536) / 3600, abs=0.06)


def test_the_page_holds_what_was_measured():
    report = ROOT / "reports/bench/rehearsal.json"
    if not report.is_file():
        pytest.skip("nothing was rehearsed yet")
    page = (ROOT / "docs/scaling.md").read_text()
    assert fill(page, json.loads(report.read_text())) == page


def test_a_stage_of_an_earlier_run_is_marked():
    facts = {"seconds": 3.0, "bars": {}, "peak_gpu_gib": 0.0, "peak_host_gib": 0.0}
    whole = {"gpus": 1, "hours": 0.0, "terabytes": 0.0, "slowest": "report"}
    whole["stages"] = dict.fromkeys(("retrieve", "report"), {"hours": 0.0, "terabytes": 0.0})
    stages = {"retrieve": facts | {"of_an_earlier_run": True}, "report": facts}
    entry = {"whole": whole, "hardware": {"gpu": "", "cpu": "a processor"}, "models": {}, "stages": stages}
    made = table({"lab": entry})
    assert "| `retrieve` † | 3 |" in made and "| `report` | 3 |" in made and "of an earlier run" in made
    assert "†" not in table({"lab": entry | {"stages": {"retrieve": facts, "report": facts}}})
