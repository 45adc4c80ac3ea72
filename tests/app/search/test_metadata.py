"""Tables of metadata beside images."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.app.search.metadata import find_metadata, read_metadata
from pipeline.artifacts import ArtifactError


def test_every_format_gives_the_same_fields(tmp_path):
    rows = [
        {"file_name": "a.png", "year": 2020, "tag": "ä, b", "kept": True, "weight": 0.5},
        {"file_name": "./more/b.png", "year": 2021, "kept": False},
    ]
    (tmp_path / "m.csv").write_text(
        'file_name,year,tag,kept,weight\na.png,2020,"ä, b",true,0.5\n./more/b.png,2021,,false,\n'
    )
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    expected = {
        "a.png": {"year": 2020, "tag": "ä, b", "kept": True, "weight": 0.5},
        "more/b.png": {"year": 2021, "kept": False},
    }
    for name in ("m.csv", "m.jsonl", "m.parquet"):
        assert read_metadata(tmp_path / name) == expected, name


def test_dates_are_texts_that_sort_by_time_and_a_nan_is_an_empty_cell(tmp_path):
    moment = datetime.datetime(2024, 5, 31, 14, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    table = {
        "file_name": ["a.png"],
        "taken": pa.array([moment], pa.timestamp("us", "Europe/Berlin")),
        "day": [datetime.date(2024, 5, 31)],
        "weight": [float("nan")],
        "label": pa.array(["x"]).dictionary_encode(),
    }
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    expected = {"taken": "2024-05-31T12:00:00", "day": "2024-05-31", "label": "x"}
    assert read_metadata(tmp_path / "m.parquet") == {"a.png": expected}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", "name,year\na.png,1\n", "there is no column 'file_name'"),
        ("m.csv", "file_name,year\na.png,1\na.png,2\n", "row 2: 'a.png' occurs twice"),
        ("m.csv", "file_name,year\na.png,1\n./a.png,2\n", "row 2: 'a.png' occurs twice"),
        ("m.csv", "file_name,year\n,1\n", "row 1: file_name is None"),
        ("m.csv", "file_name,path\na.png,1\n", "a column cannot be called 'path'"),
        ("m.csv", "file_name," + "a" * 101 + "\na.png,1\n", "a column cannot be called 'aaa"),
        ("m.csv", "file_name,a\\b\na.png,1\n", "a column cannot be called"),
        ("m.csv", "file_name,a`b\na.png,1\n", "a column cannot be called 'a`b'"),
        ("m.csv", "file_name,a,a\na.png,1,2\n", "two columns have the same name"),
        ("m.csv", "file_name,a\na.png\n", "cannot be read"),
        ("m.csv", "", "cannot be read"),
        ("m.jsonl", '{"file_name": "a.png", "box": [1, 2]}', "column 'box' holds list"),
        ("m.jsonl", "{", "cannot be read"),
        ("m.parquet", "no parquet", "cannot be read"),
        ("m.txt", "", "metadata is a .csv, .jsonl or .parquet file"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_sentence(tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    with pytest.raises(ArtifactError) as caught:
        read_metadata(tmp_path / name)
    assert reason in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


def test_one_table_lies_in_a_folder(tmp_path):
    assert find_metadata(tmp_path) is None
    (tmp_path / "metadata.csv").touch()
    assert find_metadata(tmp_path) == tmp_path / "metadata.csv"
    (tmp_path / "metadata.parquet").touch()
    with pytest.raises(ArtifactError, match="there is metadata.csv, too"):
        find_metadata(tmp_path)
