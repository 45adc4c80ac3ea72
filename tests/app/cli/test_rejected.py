"""`cir rejected` in a shell."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from pipeline.app.cli.rejected import rejected

ROWS = [{"image_id": f"x/{number}", "reason": f"the image has {number} x 2 pixels"} for number in range(12)]
ROWS.append({"image_id": "x/empty", "reason": "the image has no bytes"})


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(rejected)
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def data(tmp_path):
    (tmp_path / "pairs").mkdir()
    schema = pa.schema([("image_id", pa.string()), ("reason", pa.string())])
    pq.write_table(pa.Table.from_pylist(ROWS, schema), tmp_path / "pairs/rejected.parquet")
    return tmp_path


def test_counts_come_first_then_rows(run, data):
    lines = run(data).output.splitlines()
    assert lines[0].endswith("pairs/rejected.parquet: 13 left out")
    assert lines[1].split(maxsplit=1) == ["12", "the image has N x N pixels"]
    assert lines[2].strip() == "1  the image has no bytes"
    assert lines[3] == "  x/0: the image has 0 x 2 pixels" and len(lines) == 3 + 10 + 1
    assert lines[-1] == "  and 3 more; --rows 0 prints all of them"


def test_all_rows_of_one_reason(run, data):
    lines = run(data / "pairs/rejected.parquet", "--rows", 0, "--reason", "no bytes").output.splitlines()
    assert lines[1:] == ["        1  the image has no bytes", "  x/empty: the image has no bytes"]


def test_json_has_one_object_a_row(run, data):
    rows = [json.loads(line) for line in run(data, "--json").output.splitlines()]
    assert [(row["id"], row["reason"]) for row in rows] == [(row["image_id"], row["reason"]) for row in ROWS]


def test_nothing_and_nowhere(run, tmp_path):
    assert run(tmp_path).output == f"{tmp_path}: nothing was left out\n"
    assert run(tmp_path, "--json").output == ""
    assert run(tmp_path / "nowhere").exit_code == 1
