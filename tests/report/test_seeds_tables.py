"""Scores over training seeds as tables."""

import json

import pytest

from pipeline.artifacts import ArtifactError
from pipeline.report.seeds import seeds_tables
from pipeline.report.tables import markdown

SCORE = {"value": 53.94, "low": 50.5, "high": 57.6}
FOUND = {
    "title": "DiffComp by training seed",
    "seeds": [0, 1, 2],
    "columns": ["R@1", "R@10", "spread", "R@10 over slerp"],
    "hardware": {"gpu": None, "cpu": "a processor"},
    "benchmarks": {
        "emoji_cir": {
            "rows": {
                "diffcomp": {
                    "R@1": {"value": 15.7},
                    "R@10": SCORE,
                    "spread": {"value": 1.26},
                    "R@10 over slerp": {"value": -6.2, "low": -8.5, "high": -3.7},
                },
                "slerp": {"R@1": {"value": 18.9}, "R@10": {"value": 60.1}, "spread": {"value": 0.0}},
            }
        }
    },
}


def test_scores_have_their_spread_and_interval_and_fixed_rows_come_first(tmp_path):
    (tmp_path / "diffcomp.json").write_text(json.dumps(FOUND))
    (table,) = seeds_tables(tmp_path)
    assert table.title == "DiffComp by training seed: Emoji-CIR" and "3 training seeds" in table.caption
    assert "a processor" in table.caption
    lines = markdown([table]).splitlines()
    assert lines[-2] == "| Slerp | 18.9 | 60.1 |  |"
    assert lines[-1] == "| DiffComp | 15.7 | 53.9 ± 1.3 [50.5, 57.6] | -6.2 [-8.5, -3.7] |"


def test_nothing_is_no_table(tmp_path):
    assert seeds_tables(tmp_path) == [] and seeds_tables(tmp_path / "absent") == []


@pytest.mark.parametrize("content", ["[]", "{}", '{"benchmarks": {"a": {}}}'])
def test_another_file_is_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"x\.json: not scores by seed"):
        seeds_tables(tmp_path)
