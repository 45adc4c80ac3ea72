"""All four public benchmarks through the stages: tiny images under the real file names, tiny random models."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from bench.rehearsal import benchmarks as miniature
from pipeline.app.cli.main import app
from pipeline.config import ParameterError, load_params
from pipeline.query import registry
from stages import (
    build_index,
    embed_gallery,
    prepare,
    report,
    retrieve,
    train_control_adapter,
    train_diffcomp,
    train_prior,
)
from tests.sections import plain_values
from tests.stages.conftest import DIM, TEXT_DIM, VALUES

ROOT = Path(__file__).parents[2]


class TinyMllm:
    """Vectors from a hash of what it sees; every answer is the same caption. Remembers the prompts."""

    dim = DIM
    prompts: list[str] = []

    def embed(self, inputs):
        seeds = [
            hashlib.sha256((one.image.tobytes() if one.image else b"") + one.text.encode()).digest() for one in inputs
        ]
        vectors = np.stack([np.random.default_rng(list(seed)).normal(size=DIM) for seed in seeds]).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def generate(self, inputs, max_new_tokens, sequences=1):
        TinyMllm.prompts += [one.text for one in inputs]
        return [["A blue hat on a table"] * sequences for _ in inputs]


class TinyTextEncoder:
    def encode(self, texts):
        return [torch.full((len(text.split()), TEXT_DIM), 0.1 * len(text)) for text in texts]


def lay_out(**data) -> dict[str, Path]:
    """Miniatures of all four below data/raw, and the parameters that list them; benchmark -> folder."""
    folders = miniature.write_all(Path("data/raw"))
    data = {
        "fixture": str(ROOT / "tests/fixtures/emoji"),
        "triplets": 8,
        "triplets_all": 8,
        "benchmarks": list(folders),
    } | data
    values = VALUES | {"data": data, "retrieve": VALUES["retrieve"] | {"top_k": 50}, "report": {"bootstrap": 5}}
    Path("params.yaml").write_text(yaml.safe_dump(plain_values(**values)))
    return folders


@pytest.fixture
def run(workspace, monkeypatch):
    """Everything after the training of two steps each, by the stages' own `main`."""
    for stage in (train_prior, train_control_adapter, train_diffcomp):
        stage.main()
    folders = lay_out()
    Path("conf").symlink_to(ROOT / "conf")
    monkeypatch.setattr("pipeline.encoders.mllm.open.open_mllm", lambda *_: TinyMllm())
    monkeypatch.setattr("pipeline.encoders.text.open_text_encoder", lambda *_: TinyTextEncoder())
    monkeypatch.setattr(
        report, "open_view", lambda *_: None
    )  # `prepare` replaces the pairs that the texts here belong to
    TinyMllm.prompts = []
    for stage in (prepare, embed_gallery, build_index, retrieve, report):
        stage.main()
    return folders


def read(path):
    return json.loads(Path(path).read_text())


def scored(benchmark, folder, *rankings, split="val"):
    options = [part for path in rankings for part in ("--predictions", f"data/retrieved/{path}")]
    result = CliRunner().invoke(app, ["score", benchmark, "--annotations", str(folder), "--split", split, *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def rounded(value):
    return {key: rounded(entry) for key, entry in value.items()} if isinstance(value, dict) else round(value, 2)


def test_official_figures_and_submissions(run):
    metrics, methods = read("reports/metrics.json"), set(registry.methods(load_params()))
    assert set(metrics) == {"fashioniq_val", "cirr_val", "circo_val", "genecis_val", "orders", "index"}
    assert all(set(metrics[name]) == methods for name in metrics if name not in ("orders", "index"))

    # The command line reads the same lists and agrees with the report.
    for method in ("cirevl", "fusion_diff"):
        parts = [f"fashioniq_{category}_val/rankings/{method}" for category in ("dress", "shirt", "toptee")]
        assert rounded(scored("fashioniq", run["fashioniq"], *parts)) == metrics["fashioniq_val"][method]
        assert rounded(scored("cirr", run["cirr"], f"cirr_val/rankings/{method}")) == metrics["cirr_val"][method]
        assert rounded(scored("circo", run["circo"], f"circo_val/rankings/{method}")) == metrics["circo_val"][method]
        parts = [
            f"genecis_{verb}_{what}/rankings/{method}"
            for verb in ("focus", "change")
            for what in ("attribute", "object")
        ]
        assert rounded(scored("genecis", run["genecis"], *parts)) == metrics["genecis_val"][method]

    # Test splits have no figures but files for their servers.
    references = {str(row["pairid"]): row["reference"] for row in read(run["cirr"] / "captions/cap.rc2.test1.json")}
    for method in methods:
        recall = read(f"data/retrieved/cirr_test1/submissions/{method}.recall.json")
        subset = read(f"data/retrieved/cirr_test1/submissions/{method}.recall_subset.json")
        for name, reference in references.items():
            assert (
                len(set(recall[name])) == 50
                and len(set(subset[name])) == 3
                and reference not in recall[name] + subset[name]
            )
        circo = read(f"data/retrieved/circo_test/submissions/{method}.json")
        assert list(circo) == ["0", "1", "2", "3"] and all(len(set(ids)) == 50 for ids in circo.values())
    assert [path.name for path in Path("data/gallery").glob("circo*")] == [
        "circo_test"
    ]  # one gallery serves both splits

    # The reference stays in CIRCO's and FashionIQ's galleries, where searching for it alone must find it.
    row = next(iter(read("data/retrieved/circo_test/submissions/image_only.json").items()))
    assert row[1][0] == read(run["circo"] / "annotations/test.json")[int(row[0])]["reference_img_id"]

    # What an edit leaves unchanged: CIRCO's own field, FashionIQ's category, and for CIRR what the caption is about.
    for concept in ("a cat", "dress", "toptee", "blue hat"):
        assert any(f"shared concept '{concept}' remaining" in prompt for prompt in TinyMllm.prompts)
    assert any("'is solid red and has a hat'" in prompt for prompt in TinyMllm.prompts)
    assert any("'has a hat and is solid red'" in prompt for prompt in TinyMllm.prompts)

    results = Path("reports/tables/results.md").read_text()
    assert (
        "| Fusion-Diff | Qwen2.5-VL-72B-Instruct | Fusion-Diff, Table 1 (test) | 35.26 | 36.58 | 39.17 | 40.37 |"
        in results
    )
    assert "| **DiffComp** | models/backbones/clip | this run |" in results
    assert "The files for its server are in data/retrieved/cirr_test1/submissions." in results
    assert "PrediCIR" in Path("reports/index.html").read_text()


def test_missing_images_end_the_stage_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (lay_out()["cirr"] / "dev").iterdir():
        path.unlink()
    with pytest.raises(
        ValueError, match="cirr_val: 56 of 56 images are missing below data/raw/cirr .*https://github.com/Cuberick"
    ):
        prepare.main()
    assert [path.name for path in Path("data").iterdir()] == ["raw"]


def test_too_short_lists_for_the_servers_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(benchmarks=["circo", "emoji_cir"])
    prepare.main()
    assert {path.name for path in Path("data/benchmarks").iterdir()} == {
        "circo_val",
        "circo_test",
        "emoji_cir",
        "emoji_cir_val",
    }
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("top_k: 50", "top_k: 49"))
    with pytest.raises(ParameterError, match="retrieve.top_k: 49 is less than the 50"):
        retrieve.main()
