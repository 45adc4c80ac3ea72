"""bench/prior_training.py and bench/sampling.py, at a size that a CPU computes in seconds and without compiling."""

import json

import pytest
import torch
from torch import nn

from bench import peer, prior_training, sampling
from bench.rehearsal.sizes import T5S, T5Sizes
from pipeline.config import Speed
from pipeline.fusion_diff import Prior, PriorSizes

TINY = PriorSizes(
    dim=24,
    channels=4,
    grid=4,
    patch_size=2,
    width=32,
    heads=2,
    depth=2,
    ffn_ratio=4,
    time_frequencies=16,
    text_dim=12,
    text_tokens=300,
)

SMALL_T5 = {"d_model": TINY.text_dim, "d_ff": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8}


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch):
    monkeypatch.setattr(peer, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(peer, "PAPER", TINY)
    monkeypatch.setattr(prior_training, "EXAMPLES", 32)
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: None)
    yield
    torch.use_deterministic_algorithms(False)


def test_training(tmp_path):
    out = tmp_path / "bench.json"
    prior_training.main([4], samples=8, steps=1, tokens=40, ragged=True, out=out)
    found = json.loads(out.read_text())
    assert [str(row["text_tokens"])[:8] for row in found["rows"]] == ["40", "20 to 60", "40"]
    ours, ragged, other = found["rows"]
    assert f"{sum(p.numel() for p in Prior(TINY).parameters()):,}" in ours["model"] and "PixArt" in other["model"]
    assert all(row["samples_per_second"] > 0 for row in found["rows"])
    assert ours["accumulated"] == 2 and found["versions"]["diffusers"] and found["hardware"]["cores"]


def test_training_that_encodes_its_captions(tmp_path, monkeypatch):
    tiny = {name: T5Sizes(sizes.values | SMALL_T5) for name, sizes in T5S.items()}
    monkeypatch.setattr(prior_training, "T5S", tiny)
    prior_training._text_encoder_folder.cache_clear()
    out = tmp_path / "bench.json"
    prior_training.main([4], samples=8, steps=1, tokens=40, peer=False, encode=["float32"], out=out)
    stored, even, mixed = json.loads(out.read_text())["rows"]
    assert (stored["text_tokens"], even["text_tokens"]) == (40, 40) and mixed["text_tokens"].startswith("20 to 60")
    assert "text_encoder" not in stored and even["text_encoder"] == "float32"
    assert even["texts_per_second_alone"] > 0 and even["samples_per_second"] > 0


def test_the_encoded_captions_have_the_tokens_that_the_row_names(monkeypatch):
    tiny = {name: T5Sizes(sizes.values | SMALL_T5) for name, sizes in T5S.items()}
    monkeypatch.setattr(prior_training, "T5S", tiny)
    prior_training._text_encoder_folder.cache_clear()
    speed = Speed(fused=False, cuda_graph=False)
    text = prior_training.encoded_texts(prior_training.Setup(4, 2, 1, 40, speed, encode="float32"))
    states, mask = text.batch(torch.arange(32))
    assert states.shape == (32, 40, TINY.text_dim) and (mask is None or bool(mask.all()))


def test_sampling(tmp_path):
    out = tmp_path / "bench.json"
    sampling.main([1, 3], tokens=5, repeats=2, out=out)
    rows = json.loads(out.read_text())["rows"]
    assert [row.get("batch") for row in rows] == [1, 3, None, 1, 3, 1, 3, 1, 3]  # ours, drift, a student's passes, peer
    assert all(row["least_cosine_with_fp32_plain"] > 0.99 for row in rows[:2] + rows[3:7])
    assert rows[2]["least_cosine"] > 0.99
    assert all(row["median_ms"] > 0 for row in rows if "batch" in row)


def test_the_peer_is_the_same_transformer():
    """Sizes of the paper, without memory for the weights: depth, width, tokens, and nearly the prior's arithmetic."""
    paper = PriorSizes(
        **{**vars(TINY), "dim": 1536, "grid": 32, "width": 1152, "heads": 16, "depth": 28, "text_dim": 4096}
    )
    with torch.device("meta"):
        model = peer.make_peer(paper)
    assert len(model.transformer_blocks) == 28 and model.inner_dim == 1152
    assert (model.config.sample_size // model.config.patch_size) ** 2 == paper.tokens == 256
