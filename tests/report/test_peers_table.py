"""The committed scores of the peers as a table."""

import json

import pytest

from pipeline.artifacts import ArtifactError
from pipeline.report.peers import peers_table
from pipeline.report.tables import markdown

SCORES = {
    "caption": "Three seeds.",
    "columns": ["R@10", "over Slerp"],
    "rows": [
        {"method": "slerp", "R@10": {"value": 58.9}, "over Slerp": None},
        {"method": "lincir", "R@10": {"value": 42.04}, "over Slerp": {"value": -16.86, "low": -20.0, "high": -13.7}},
    ],
}


def test_scores_and_their_intervals_are_shown(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps(SCORES))
    text = markdown([peers_table(tmp_path)])
    assert "| Slerp | 58.9 |  |" in text and "| LinCIR | 42.0 | -16.9 [-20.0, -13.7] |" in text


def test_no_scores_are_no_table(tmp_path):
    assert peers_table(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    ["[]", '{"columns": []}', '{"columns": ["R@1"], "caption": "", "rows": [{"method": "a"}]}'],
)
def test_another_file_is_named(tmp_path, content):
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"scores\.json: not the peers' scores"):
        peers_table(tmp_path)
