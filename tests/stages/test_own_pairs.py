"""Own pairs alone: a folder with a CSV and no edits runs the whole graph with the shipped small models."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from bench.rehearsal import benchmarks as miniature
from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.config import as_dict, load_params
from pipeline.fusion_diff.checkpoints import load_control, load_prior
from pipeline.query.registry import methods
from stages import (
    build_index,
    embed_fused,
    embed_gallery,
    extract_text,
    prepare,
    report,
    retrieve,
    train_control_adapter,
    train_diffcomp,
    train_prior,
)
from tests.sections import profile
from tests.sources.web.test_web_pairs import make_image

ROOT = Path(__file__).parents[2]
STAGES = (
    prepare,
    extract_text,
    embed_fused,
    train_prior,
    train_control_adapter,
    train_diffcomp,
    embed_gallery,
    build_index,
    retrieve,
    report,
)
IMAGES, CAPTIONS = 14, 2
COLOURS, THINGS = ("red", "blue"), ("hat", "cat", "dog", "car", "tree", "ball", "boat")


def write_own_pairs() -> None:
    folder = Path("data/raw/folder")
    folder.mkdir(parents=True)
    rows = [("image", "caption")]
    for number in range(IMAGES):
        (folder / f"{number}.jpg").write_bytes(make_image(number, size=(64, 64)))
        name = f"{COLOURS[number % 2]} {THINGS[number // 2]}"
        rows += [(f"{number}.jpg", f"a {name}"), (f"{number}.jpg", f"the {name} on a table")]
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_params() -> None:
    values = as_dict(profile("smoke"))
    values["data"] |= {"sources": "web", "benchmarks": ["cirr"], "cirr": {"folder": "data/raw/cirr", "splits": ["val"]}}
    values["data"]["web"] = {"pairs": ["folder"], "edits": [], "max_rejected_share": 0.0}
    values["captions"]["long_share"] = 0.0
    values["diffcomp"] |= {"batch_size": 8, "relatives": 4}
    values["diffcomp_variants"] = {"diffcomp": {}}
    values["report"]["bootstrap"] = 5
    Path("params.yaml").write_text(yaml.safe_dump(values))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workspace after every stage, and what the stages said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("own"))
        for name in ("conf", "models/backbones", "ablations"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).symlink_to(ROOT / name)
        write_own_pairs()
        miniature.write_all(Path("data/raw"))
        write_params()
        for stage in STAGES:
            stage.main()
        yield


@pytest.fixture
def said(finished, capsys):
    train_control_adapter.main()
    return capsys.readouterr().out


def test_every_caption_is_a_pair(finished):
    for table, column in (("data/texts/pairs", "pair_id"), ("data/fused/pairs", "id"), ("data/fused/pairs_text", "id")):
        ids = ShardSet.open(table).table([column])[column].to_pylist()
        assert len(ids) == IMAGES * CAPTIONS and ids[:2] == ["folder/0.jpg/short", "folder/0.jpg/short/1"]


def test_stage_2_is_skipped_with_a_sentence(said):
    assert said == "data.web.edits lists no source, so Stage 2 and the method fusion_diff are skipped\n"
    assert [path.name for path in Path("models/control").iterdir()] == ["skipped.json"]
    assert ShardSet.open("data/triplets/sampled").rows == ShardSet.open("data/fused/triplets_query").rows == 0
    prior, _ = load_prior("models/prior")
    with pytest.raises(ArtifactError, match="there is no Control-Adapter: data.web.edits lists no source"):
        load_control("models/control", prior, "models/prior")


def test_the_methods_that_need_it_leave_tables_and_page(finished):
    configured = set(methods(load_params()))
    assert "fusion_diff" not in configured and {"stage1_only", "fused_only", "diffcomp"} < configured
    metrics = json.loads(Path("reports/metrics.json").read_text())
    assert set(metrics["cirr_val"]) == configured
    table, page = (Path("reports", name).read_text() for name in ("tables/results.md", "index.html"))
    assert "Fusion-Diff (C)" not in table + page and "Stage 1 only (B)" in page
    assert not Path("reports/plots/loss_control_adapter.csv").exists()


def test_without_a_benchmark_models_are_trained_and_nothing_is_ranked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_own_pairs()
    write_params()
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["data"]["benchmarks"] = []
    Path("params.yaml").write_text(yaml.safe_dump(values))
    prepare.main()
    assert ShardSet.open("data/pairs/images").rows == IMAGES and [*Path("data/benchmarks").iterdir()] == []
    with pytest.raises(ArtifactError, match="data/benchmarks: no benchmark is there"):
        embed_gallery.main()
