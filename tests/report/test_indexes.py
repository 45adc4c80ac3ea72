"""The indexes' recall in metrics.json."""

import dataclasses

import pytest

from pipeline.artifacts import ArtifactError, read_json, write_json
from pipeline.report import build_report
from pipeline.report.indexes import index_metrics


def test_recall_comes_from_the_manifests_in_percent(inputs, tmp_path):
    for benchmark, space, manifest in (
        ("emoji_cir", "fused", {"kind": "hnsw", "recall@10": 0.9871}),
        ("emoji_cir", "clip", {"kind": "flat"}),
        ("emoji_cir_val", "fused", {"kind": "flat", "recall@10": 1.0}),
        ("tiny", "fused", {"kind": "flat", "recall@10": None}),
    ):
        (tmp_path / "index" / benchmark / space).mkdir(parents=True)
        write_json(tmp_path / "index" / benchmark / space / "manifest.json", manifest)
    expected = {"emoji_cir": {"fused": {"recall@10": 98.71}}, "emoji_cir_val": {"fused": {"recall@10": 100.0}}}
    assert index_metrics(tmp_path / "index") == expected
    build_report(dataclasses.replace(inputs, index=index_metrics(tmp_path / "index")))
    assert read_json(inputs.out / "metrics.json")["index"] == expected


def test_no_index_at_all_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="nowhere: no index is there"):
        index_metrics(tmp_path / "nowhere")
