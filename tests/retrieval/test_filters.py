"""Filters on metadata: what is read, what is wrong with what is not, and that SQLite and Milvus mean the same by it."""

import json
import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import IndexParams
from pipeline.retrieval.filters import MAX_DEPTH, FilterError, as_milvus, as_sql, negated, parse_filter
from pipeline.retrieval.milvus import METADATA, Collection
from tests.sections import section

FIELDS = {"year": "number", "tag": "text", "kept": "truth", "date taken": "text", "size": "number"}
ROWS = [
    {"size": 1, "year": 1999, "tag": "draft one", "kept": True, "date taken": "2020-01-02"},
    {"size": 2, "year": 2020, "tag": "Draft two", "kept": False},
    {"size": 3, "year": 2020.5, "tag": 'quo"te'},
    {"size": 4, "tag": "it's", "date taken": "2021-05-31"},
    {"size": 5, "year": -3, "kept": True, "tag": "50% off_[x]*?"},
    {"size": 6, "tag": "ünï 🙂"},
    {"size": 7, "year": 2021, "tag": "", "kept": False},
    {"size": 8},
]
MEANT = {
    "year == 2020": lambda row: row.get("year") == 2020,
    "year = 2020.5": lambda row: row.get("year") == 2020.5,
    "year != 2020": lambda row: "year" in row and row["year"] != 2020,
    "not year == 2020": lambda row: "year" in row and row["year"] != 2020,
    "year >= 2020 and year < 2021": lambda row: 2020 <= row.get("year", 0) < 2021,
    "year <= -3 || year > 2.0205e3": lambda row: "year" in row and (row["year"] <= -3 or row["year"] > 2020.5),
    "! (year >= 2020 && kept == true)": lambda row: (
        ("year" in row and row["year"] < 2020) or ("kept" in row and not row["kept"])
    ),
    "year in [1999, 2021]": lambda row: row.get("year") in (1999, 2021),
    "year not in [1999, 2021]": lambda row: "year" in row and row["year"] not in (1999, 2021),
    "not not year in [1999]": lambda row: row.get("year") == 1999,
    "kept == true": lambda row: row.get("kept") is True,
    "kept != true": lambda row: row.get("kept") is False,
    'tag == ""': lambda row: row.get("tag") == "",
    'tag like "draft%"': lambda row: row.get("tag", "").startswith("draft"),
    'not tag like "draft%"': lambda row: "tag" in row and not row["tag"].startswith("draft"),
    'tag like "d_aft%"': lambda row: row.get("tag", "").startswith("draft"),
    'tag like "quo_te"': lambda row: row.get("tag") == 'quo"te',
    'tag like "%two"': lambda row: row.get("tag", "").endswith("two"),
    'tag == "quo\\"te" or tag == "it\'s"': lambda row: row.get("tag") in ('quo"te', "it's"),
    "tag == 'it\\'s'": lambda row: row.get("tag") == "it's",
    'tag == "ünï 🙂"': lambda row: row.get("tag") == "ünï 🙂",
    'tag < "e" and tag > "Z"': lambda row: "Z" < row.get("tag", "") < "e",
    '`date taken` >= "2020-06"': lambda row: row.get("date taken", "") >= "2020-06",
    "size > 2 and (year < 0 or not (tag like '%e%' or kept == false))": lambda row: (
        row["size"] > 2
        and (
            ("year" in row and row["year"] < 0)
            or ("tag" in row and "e" not in row["tag"] and "kept" in row and row["kept"])
        )
    ),
}


def expected(text: str) -> list[int]:
    return [row["size"] for row in ROWS if MEANT[text](row)]


def in_sqlite(text: str) -> list[int]:
    columns = {name: f"json_extract(fields, '$.\"{name}\"')" for name in FIELDS}
    condition, values = as_sql(parse_filter(text, FIELDS), columns)
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE rows (fields TEXT)")
        connection.executemany("INSERT INTO rows VALUES (?)", [[json.dumps(row)] for row in ROWS])
        found = connection.execute(f"SELECT fields FROM rows WHERE {condition}", values).fetchall()
    connection.close()
    return [json.loads(fields)["size"] for (fields,) in found]


@pytest.mark.parametrize("text", MEANT)
def test_sqlite_finds_what_is_meant(text):
    assert in_sqlite(text) == expected(text)


def test_milvus_finds_what_is_meant(milvus):
    collection = Collection(section(IndexParams, kind="milvus", uri=milvus), "cir_filters")
    collection.create(2)
    collection.upsert([row["size"] for row in ROWS], np.eye(1, 2).repeat(len(ROWS), 0), ROWS)
    collection.finish()
    for text in MEANT:
        where = as_milvus(parse_filter(text, FIELDS), METADATA)
        found = next(collection.search(np.eye(1, 2, dtype=np.float32), 20, where))
        assert sorted(slot for slot, _, _ in found) == expected(text), (text, where)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it ends at character 1, where a field is expected"),
        ("  ", "where a field is expected"),
        ("colour == 1", "there is no field 'colour'; there are: date taken, kept, size, tag, year"),
        ("`colour` == 1", "there is no field 'colour'"),
        ("year", "it ends at character 5, where a comparison such as == or in is expected"),
        ("year ==", "where a value: a text in quotation marks, a number, true or false is expected"),
        ("year == tag", "there is 'tag' at character 9, where a value"),
        ("year == '2020'", "year is a number, '2020' is not"),
        ("tag == 1", "tag is a text, 1 is not"),
        ("kept == 1", "kept is true or false, 1 is not"),
        ("year == true", "year is a number, true is not"),
        (r"tag like 'a\\b'", "`like` takes no backslash"),
        ("year like '20%'", "year is a number; `like` compares texts"),
        ("year == 1e999", "1e999 is not"),
        ("year == 99999999999999999999", "is too large"),
        ("year == 1 year == 2", "there is 'year' at character 11, where `and` or `or` is expected"),
        ("(year == 1", "it ends at character 11, where ')' is expected"),
        ("year == 1)", "there is ')' at character 10"),
        ("year in []", "there is ']'"),
        ("year in 1", "where '[' is expected"),
        ("tag == 'open", '"\'" at character 8 cannot be read'),
        ("year == 1; drop", "';' at character 10 cannot be read"),
        ("year == 1 -- x", "'-' at character 11 cannot be read"),
        ("year == \x00", "cannot be read"),
        ("year == 1 or " * 400 + "year == 1", "characters, at most 2,000 are taken"),
        ("not " * (MAX_DEPTH + 1) + "year == 1", f"nested deeper than {MAX_DEPTH}"),
    ],
)
def test_what_is_wrong_is_one_sentence(text, reason):
    with pytest.raises(FilterError) as caught:
        parse_filter(text, FIELDS)
    said = str(caught.value)
    assert said.startswith("filter: ") and reason in said and "\n" not in said


@given(
    st.lists(st.sampled_from([*"()[],'\"`%", "year", "tag", "and", "or", "not", "in", "like", "==", "<", "1", "'a'"]))
)
def test_any_words_are_a_filter_or_a_sentence(words):
    try:
        tree = parse_filter(" ".join(words), FIELDS)
    except FilterError as error:
        assert str(error).startswith("filter: ")
    else:
        assert negated(negated(tree)) == tree and as_sql(tree, dict.fromkeys(FIELDS, "x"))[0].isascii()


@given(st.text(max_size=60))
def test_a_text_is_found_by_itself_and_is_no_command(text):
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    try:
        tree = parse_filter(f"tag == {quoted}", FIELDS)
    except FilterError as error:  # a line break in a text
        assert "cannot be read" in str(error) and ("\n" in text)
        return
    condition, values = as_sql(tree, {"tag": "tag"})
    assert (condition, values) == ("tag == ?", [text])
