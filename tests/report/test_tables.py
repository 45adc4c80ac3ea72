from pipeline.report.names import describe, ordered
from pipeline.report.tables import best_and_second, markdown, recall_table
from pipeline.retrieval.bootstrap import Interval


def scores(value):
    return {"R@1": value / 2, "R@10": value}


METRICS = {
    "slerp": {"gender": scores(30), "role": scores(40), "mean": scores(35)},
    "fused_only": {"gender": scores(50), "role": scores(20), "mean": scores(35)},
    "fusion_diff": {"gender": scores(45), "role": scores(40), "mean": scores(42.5)},
}


def test_marks():
    assert best_and_second([1, 3, 2]) == ["", "best", "second"]
    assert best_and_second([3, 3, 2, 2, 1]) == ["best", "best", "second", "second", ""]
    assert best_and_second([5]) == ["best"] and best_and_second([2, 2]) == ["best", "best"]


def test_recall_table_marks_each_column():
    table = recall_table(METRICS, {"fusion_diff": Interval(42.5, 40.04, 45)})
    assert table.columns == ("Mean R@1", "Mean R@10", "Gender", "Role")
    by_method = {row.method: row for row in table.rows}
    assert [cell.mark for cell in by_method["slerp"].cells] == ["second", "second", "", "best"]
    assert [cell.mark for cell in by_method["fused_only"].cells] == ["second", "second", "best", "second"]
    assert [cell.mark for cell in by_method["fusion_diff"].cells] == ["best", "best", "second", "best"]
    assert [cell.interval for cell in by_method["fusion_diff"].cells] == ["", "[40.0, 45.0]", "", ""]
    assert [row.group for row in table.rows] == ["Training-free", "Fusion-Diff", ""]


def test_markdown():
    lines = markdown([recall_table(METRICS, {"fusion_diff": Interval(42.5, 40.04, 45)})]).splitlines()
    assert lines[4] == "| method | Mean R@1 | Mean R@10 | Gender | Role |"
    assert lines[8] == "| Fusion-Diff (C) | **21.2** | **42.5** [40.0, 45.0] | <u>45.0</u> | **40.0** |"


def test_methods_that_no_table_knows_come_last_under_their_key():
    assert ordered(["zeta", "diffcomp", "alpha", "image_only"]) == ["image_only", "diffcomp", "alpha", "zeta"]
    assert describe("zeta").label == "zeta" and describe("diffcomp").label == "DiffComp"
    assert describe("zeta").group == "Other"
