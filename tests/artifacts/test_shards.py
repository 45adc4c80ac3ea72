"""Shard sets: what is written is read, what is damaged is named, what was finished is kept."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts import ArtifactError, ShardSet, ShardWriter, schemas, table_ids, write_table

IDENTITY = {"model": "m", "dim": 3, "sizes": [1, 2], "nested": {"a": None}}


def vectors(rows, start=0, dim=3, dtype=pa.float32()):
    numbers = np.arange(start * dim, (start + rows) * dim, dtype=dtype.to_pandas_dtype())
    ids = [f"id{number}" for number in range(start, start + rows)]
    return pa.table(
        {"id": ids, "vector": pa.FixedSizeListArray.from_arrays(pa.array(numbers), dim)},
        schema=schemas.embeddings(dim, dtype),
    )


def hashes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def edit_manifest(folder, edit):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def shard_set(tmp_path):
    """25 rows in shards of 10."""
    write_table(tmp_path / "set", vectors(25), IDENTITY, rows_per_shard=10)
    return tmp_path / "set"


def test_round_trip(shard_set):
    opened = ShardSet.open(shard_set, IDENTITY)
    assert opened.table().equals(vectors(25)) and opened.rows == 25 and opened.identity == IDENTITY
    assert [table.num_rows for table in opened.shards()] == [10, 10, 5]
    assert opened.table(["id"]).column_names == ["id"]
    assert sorted(hashes(shard_set)) == [
        "manifest.json",
        "part-00000.parquet",
        "part-00001.parquet",
        "part-00002.parquet",
    ]


STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PAIR = st.fixed_dictionaries(
    {
        "pair_id": STRINGS,
        "image_id": STRINGS,
        "caption": STRINGS | st.none(),
        "caption_kind": st.sampled_from(["short", "long"]),
        "phrases": st.lists(STRINGS, max_size=3) | st.none(),
    }
)


@given(
    rows=st.lists(PAIR, max_size=20, unique_by=lambda row: row["pair_id"]),
    per_shard=st.integers(1, 7),
    cuts=st.lists(st.integers(0, 20), max_size=4),
)
def test_any_rows_in_any_batches_come_back_with_the_same_bytes(tmp_path_factory, rows, per_shard, cuts):
    folder = tmp_path_factory.mktemp("shards")
    table = pa.Table.from_pylist(rows, schema=schemas.PAIRS)
    manifest = write_table(folder / "whole", table, {"seed": 0}, per_shard)
    opened = ShardSet.open(folder / "whole", {"seed": 0})
    assert opened.table().to_pylist() == rows
    assert all(shard.rows == per_shard for shard in manifest.shards[:-1]) and manifest.rows == len(rows)

    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    writer = ShardWriter(folder / "batches", schemas.PAIRS, {"seed": 0}, per_shard)
    for start, end in zip(edges, edges[1:], strict=False):
        writer.write(table.slice(start, end - start))
    writer.close()
    assert hashes(folder / "batches") == hashes(folder / "whole")


@pytest.mark.parametrize("dtype", [pa.float16(), pa.float32()])
def test_vectors_keep_their_type_and_size(tmp_path, dtype):
    write_table(tmp_path / "set", vectors(4, dim=5, dtype=dtype), {})
    schema = ShardSet.open(tmp_path / "set").table().schema
    assert schema.field("vector").type == pa.list_(dtype, 5)


def test_ragged_token_states_keep_their_dimension(tmp_path):
    schema = schemas.conditions(2)
    states = [np.arange(2 * tokens, dtype=np.float16) for tokens in (3, 0, 1)]
    rows = pa.table({"id": ["a", "b", "c"], "tokens": [3, 0, 1], "states": states}, schema=schema.remove_metadata())
    writer = ShardWriter(tmp_path / "set", schema, {}, 2)
    writer.write(rows)
    writer.close()
    table = ShardSet.open(tmp_path / "set").table()
    assert table.schema.metadata == {b"dim": b"2"}
    assert [len(row) for row in table["states"].to_pylist()] == [6, 0, 2]


def test_only_numbers_of_vectors_have_no_dictionary(tmp_path):
    def with_dictionary(folder):
        columns = pq.ParquetFile(folder / ShardSet.open(folder).manifest.shards[0].name).metadata.row_group(0)
        columns = [columns.column(number) for number in range(columns.num_columns)]
        return {column.path_in_schema.split(".")[0] for column in columns if column.has_dictionary_page}

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(8, np.float32)), 4)
    write_table(
        tmp_path / "vectors", pa.Table.from_arrays([pa.array(["a", "b"]), vectors], schema=schemas.embeddings(4)), {}
    )
    write_table(tmp_path / "words", pa.table({"id": ["a", "b"], "words": [["x", "y"], ["x"]]}), {})
    assert with_dictionary(tmp_path / "vectors") == {"id"} and with_dictionary(tmp_path / "words") == {"id", "words"}


def test_no_rows_are_one_empty_shard(tmp_path):
    write_table(tmp_path / "set", vectors(0), {})
    assert ShardSet.open(tmp_path / "set").table().equals(vectors(0))
    with pytest.raises(ArtifactError, match="no rows"):
        write_table(tmp_path / "none", iter(()), {})
    assert not (tmp_path / "none").exists()


def test_rows_of_another_schema_are_refused(tmp_path):
    writer = ShardWriter(tmp_path / "set", schemas.embeddings(3), {})
    with pytest.raises(ArtifactError, match="schema"):
        writer.write(vectors(2, dim=4))
    with pytest.raises(ValueError, match="rows_per_shard 0"):
        ShardWriter(tmp_path / "set", schemas.embeddings(3), {}, rows_per_shard=0)


def test_a_flipped_bit_anywhere_is_found(shard_set):
    path = shard_set / "part-00001.parquet"
    content = path.read_bytes()
    for position in random.Random(0).sample(range(len(content)), 20):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="part-00001.parquet.*SHA-256"):
            ShardSet.open(shard_set)


def test_a_truncated_shard_is_named(shard_set):
    path = shard_set / "part-00002.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="part-00002.parquet.*SHA-256"):
        ShardSet.open(shard_set)
    unverified = ShardSet.open(shard_set, verify=False)
    with pytest.raises(ArtifactError, match="part-00002.parquet: not readable as Parquet"):
        unverified.table()


def test_a_missing_shard_is_named(shard_set):
    (shard_set / "part-00000.parquet").unlink()
    with pytest.raises(ArtifactError, match="part-00000.parquet.*missing"):
        ShardSet.open(shard_set)


def test_a_wrong_row_count_is_named(shard_set):
    edit_manifest(shard_set, lambda content: content["shards"][1].update(rows=11))
    with pytest.raises(ArtifactError, match="part-00001.parquet: 10 rows, the manifest says 11"):
        ShardSet.open(shard_set).table()


@pytest.mark.parametrize("name", ["../outside.parquet", "/etc/passwd", "sub/part-00000.parquet", "..", ".", ""])
def test_a_manifest_cannot_name_a_file_elsewhere(shard_set, name):
    (shard_set.parent / "outside.parquet").write_bytes((shard_set / "part-00000.parquet").read_bytes())
    edit_manifest(shard_set, lambda content: content["shards"][0].update(name=name))
    with pytest.raises(ArtifactError, match="not a file of this folder|missing"):
        ShardSet.open(shard_set, verify=False)


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.pop("shards"),
        lambda content: content.update(shards=[1]),
        lambda content: content.update(identity=3),
        lambda content: content["shards"][0].update(name=5),
        lambda content: content["shards"][0].update(rows="many"),
        lambda content: content["shards"][0].update(extra=1),
    ],
)
def test_a_manifest_of_another_shape_is_refused(shard_set, edit):
    edit_manifest(shard_set, edit)
    with pytest.raises(ArtifactError, match="manifest.json: not a shard-set manifest"):
        ShardSet.open(shard_set)


def test_other_versions_and_no_manifest_are_refused(shard_set, tmp_path):
    edit_manifest(shard_set, lambda content: content.update(schema_version=99))
    with pytest.raises(ArtifactError, match="version 99"):
        ShardSet.open(shard_set)
    with pytest.raises(ArtifactError, match="nowhere.*no such file"):
        ShardSet.open(tmp_path / "nowhere")


def test_identity_names_the_field_that_differs(shard_set):
    ShardSet.open(shard_set, {"dim": 3, "sizes": (1, 2)})
    with pytest.raises(ArtifactError, match="dim = 3, but 4"):
        ShardSet.open(shard_set, {"model": "m", "dim": 4})
    with pytest.raises(ArtifactError, match="revision = None, but 'r'"):
        ShardSet.open(shard_set, {"revision": "r"})


def test_a_failed_write_table_keeps_what_was_there(shard_set):
    before = hashes(shard_set)

    def batches():
        yield from vectors(12).to_batches()
        raise KeyError

    with pytest.raises(KeyError):
        write_table(shard_set, batches(), IDENTITY, rows_per_shard=10)
    assert hashes(shard_set) == before and [path.name for path in shard_set.parent.iterdir()] == ["set"]


def write_resuming(folder, rows, stop=None, identity=IDENTITY, per_shard=10):
    """Write as a stage does: skip what is done, go on in batches of 3; `stop` breaks off after so many rows."""
    writer = ShardWriter(folder, schemas.embeddings(3), identity, per_shard, resume=True)
    done = writer.rows_done
    for start in range(done, rows, 3):
        if stop is not None and start >= stop:
            return done
        writer.write(vectors(min(3, rows - start), start))
    writer.close()
    return done


@given(stops=st.lists(st.integers(0, 40), max_size=3))
def test_resumed_equals_undisturbed(tmp_path_factory, stops):
    folder = tmp_path_factory.mktemp("resume")
    write_table(folder / "whole", vectors(35), IDENTITY, rows_per_shard=10)
    for stop in stops:
        write_resuming(folder / "resumed", 35, stop)
        assert not (folder / "resumed" / "manifest.json").exists() or stop > 34
    write_resuming(folder / "resumed", 35)
    assert hashes(folder / "resumed") == hashes(folder / "whole")


def test_finished_shards_are_not_written_again(tmp_path):
    write_resuming(tmp_path, 35, stop=25)
    written = (tmp_path / "part-00001.parquet").stat().st_mtime_ns
    assert write_resuming(tmp_path, 35) == 20
    assert (tmp_path / "part-00001.parquet").stat().st_mtime_ns == written


@pytest.mark.parametrize("change", ["identity", "rows_per_shard"])
def test_another_identity_or_shard_size_starts_anew(tmp_path, change):
    write_resuming(tmp_path, 25)
    (tmp_path / "stranger").write_text("?")
    options = {"identity": {**IDENTITY, "dim": 4}} if change == "identity" else {"per_shard": 5}
    assert write_resuming(tmp_path, 25, **options) == 0
    assert ShardSet.open(tmp_path).table().equals(vectors(25)) and not (tmp_path / "stranger").exists()


def test_a_damaged_finished_shard_is_written_again_with_what_follows(tmp_path):
    write_resuming(tmp_path, 45, stop=40)
    path = tmp_path / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert write_resuming(tmp_path, 45) == 10
    assert ShardSet.open(tmp_path).table().equals(vectors(45))


@pytest.mark.parametrize("journal", ["", "[]", '{"identity": 1}', '{"shards": [{"name": "../x"}]}'])
def test_a_damaged_journal_starts_anew(tmp_path, journal):
    write_resuming(tmp_path, 25, stop=24)
    (tmp_path / ShardWriter.JOURNAL).write_text(journal)
    assert write_resuming(tmp_path, 25) == 0
    assert ShardSet.open(tmp_path).rows == 25


def test_a_folder_among_the_shards_is_not_removed(tmp_path):
    (tmp_path / "set" / "mine").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="mine: a folder"):
        ShardWriter(tmp_path / "set", schemas.embeddings(3), {})


TABLES = {
    "images": (schemas.IMAGES, {"image_id": "a", "bytes": b"", "width": 1, "height": 1}),
    "pairs": (schemas.PAIRS, {"pair_id": "a", "image_id": "x"}),
    "triplets": (schemas.TRIPLETS, {"triplet_id": "a"}),
    "queries": (schemas.QUERIES, {"query_id": "a"}),
    "rankings": (schemas.RANKINGS, {"query_id": "a", "method": "text only"}),
    "similarities": (schemas.SIMILARITIES, {"query_id": "a", "method": "text only"}),
    "descriptions": (schemas.DESCRIPTIONS, {"query_id": "a"}),
    "embeddings": (schemas.embeddings(2), {"id": "a", "vector": [0, 1]}),
    "conditions": (schemas.conditions(2), {"id": "a", "tokens": 0, "states": []}),
}


@pytest.mark.parametrize(("schema", "row"), TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("per_shard", [1, 2, 3, 10])
def test_no_table_holds_an_id_twice(tmp_path, schema, row, per_shard):
    """Whether the first of the two rows is in a finished shard, waits for its shard, or comes with the second one."""
    rows = pa.Table.from_pylist([{**row, schema.names[0]: one} for one in "bac"], schema)
    again = pa.Table.from_pylist([row], schema)
    writer = ShardWriter(tmp_path / "set", schema, {}, per_shard)
    writer.write(rows)
    with pytest.raises(ArtifactError, match=f"{tmp_path}/set: rows 1 and 3 have the same {schema.names[0]}.* 'a"):
        writer.write(again)
    with pytest.raises(ArtifactError, match=f"{tmp_path}/whole: rows 1 and 3 have the same"):
        write_table(tmp_path / "whole", pa.concat_tables([rows, again]), {}, per_shard)
    assert not (tmp_path / "whole").exists()


def test_a_repetition_in_one_large_table(tmp_path, monkeypatch):
    monkeypatch.setattr(table_ids, "ROWS", 4)
    rows = pa.concat_tables([vectors(10), vectors(1, 3)])
    with pytest.raises(ArtifactError, match="rows 3 and 10 have the same id 'id3'"):
        write_table(tmp_path / "set", rows, {})


def test_two_methods_answer_the_same_query(tmp_path):
    rows = [{"query_id": "a", "method": method} for method in ("one", "other")]
    assert write_table(tmp_path / "set", pa.Table.from_pylist(rows, schemas.RANKINGS), {}).rows == 2


def test_an_id_of_an_earlier_run_is_remembered(tmp_path):
    write_resuming(tmp_path, 35, stop=25)
    writer = ShardWriter(tmp_path, schemas.embeddings(3), IDENTITY, 10, resume=True)
    with pytest.raises(ArtifactError, match="rows 7 and 20 have the same id 'id7'"):
        writer.write(vectors(1, 7))
    writer = ShardWriter(tmp_path, schemas.embeddings(3), IDENTITY, 10, resume=True)
    writer.keep_shards(1)
    writer.write(vectors(10, 10))
    writer.keep_shards(1)
    writer.write(vectors(25, 10))
    writer.close()
    assert ShardSet.open(tmp_path).table().equals(vectors(35))


KILLED = """
import os, signal, sys
import numpy as np, pyarrow as pa
from pipeline.artifacts import ShardWriter

def write(folder, renames):
    schema = pa.schema([("number", pa.int64())])
    replace, left = os.replace, renames
    def dying(source, target):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    os.replace = dying
    writer = ShardWriter(folder, schema, {}, 10, resume=True)
    for start in range(writer.rows_done, 35, 5):
        writer.write(pa.table({"number": np.arange(start, start + 5)}, schema=schema))
    writer.close()

def survives(folder, renames):
    child = os.fork()
    if not child:
        write(folder, renames)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

killed = 0
while not survives(f"{sys.argv[1]}/{killed}", killed):
    assert not os.path.exists(f"{sys.argv[1]}/{killed}/manifest.json")
    assert survives(f"{sys.argv[1]}/{killed}", 1000)
    killed += 1
"""


def test_killed_before_any_rename_it_resumes_to_the_same_bytes(tmp_path):
    """Every rename is a moment between two states: one run dies before each of them."""
    (tmp_path / "sets").mkdir()
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "sets")], check=True)
    write_table(tmp_path / "whole", pa.table({"number": np.arange(35)}), {}, 10)
    sets = list((tmp_path / "sets").iterdir())
    # The journal; four shards, each followed by the journal; the journal again, which becomes the manifest;
    # undisturbed.
    assert len(sets) == 1 + 2 * 4 + 2 + 1
    assert all(hashes(folder) == hashes(tmp_path / "whole") for folder in sets)
