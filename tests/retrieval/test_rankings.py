import pyarrow as pa
import pytest

from pipeline.artifacts import ArtifactError, schemas, write_table
from pipeline.retrieval import Query, Ranking, read_queries, read_rankings, write_rankings


def test_rankings_come_back(tmp_path):
    written = [Ranking("q1", ("a", "b"), (0.5, 0.25), ("b",)), Ranking("q0", ("c",), (1.0,))]
    write_rankings(tmp_path / "slerp", "slerp", written, {"weight": 0.5})
    rankings = read_rankings(tmp_path / "slerp")
    assert (rankings.method, rankings.identity) == ("slerp", {"weight": 0.5})
    queries = [Query("q0", "r", ("x",), ("c",)), Query("q1", "r", ("x",), ("a",))]
    assert rankings.aligned(queries) == [written[1], written[0]]
    with pytest.raises(ArtifactError, match="1 queries have no ranked list, the first is 'q2'"):
        rankings.aligned([*queries, Query("q2", "r", ("x",), ("a",))])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Ranking("q", ("a", "a"), (1.0, 0.5))], "'q' names an image twice"),
        ([Ranking("q", ("a",), (1.0, 0.5))], "'q' has 1 ids and 2 scores"),
        ([Ranking("q", ("a",), (1.0,))] * 2, "'q' occurs twice"),
        ([], "no ranked lists"),
    ],
)
def test_bad_rankings_are_named(tmp_path, rows, message, repeated_ids):
    write_rankings(tmp_path / "m", "m", rows, {})
    with pytest.raises(ArtifactError, match=message):
        read_rankings(tmp_path / "m")


def query_row(query_id, targets):
    return {
        "query_id": query_id,
        "reference_id": "r",
        "modifications": ["red", "round"],
        "target_ids": targets,
        "subset_ids": [],
        "category": "colour",
        "shared_concept": "heart",
    }


def test_queries_are_checked(tmp_path, repeated_ids):
    for name, rows in (
        ("good", [query_row("q", ["a"])]),
        ("bare", [query_row("q", [])]),
        ("twice", [query_row("q", ["a"])] * 2),
    ):
        write_table(tmp_path / name, pa.Table.from_pylist(rows, schema=schemas.QUERIES), {})
    [query] = read_queries(tmp_path / "good")
    assert query == Query("q", "r", ("red", "round"), ("a",), (), "colour", "heart") and query.text == "red, round"
    with pytest.raises(ArtifactError, match="'q' has no target"):
        read_queries(tmp_path / "bare")
    with pytest.raises(ArtifactError, match="'q' occurs twice"):
        read_queries(tmp_path / "twice")
