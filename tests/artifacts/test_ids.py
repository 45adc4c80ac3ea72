"""Ids of paths tell files apart, and no id that comes twice is missed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts import ids as ids_module
from pipeline.artifacts.ids import IdError, IdRegister, UniqueIds, id_of

STEMS = ("cat", "cat.1", "train.00000", "train.00001", "deep/cat", "deep.er/cat", "...cat", "ü b", ".tar")
ENDINGS = ("", ".jpg", ".JPG", ".png", ".tar", ".tar.gz", ".tgz", ".v2.jpg")


@pytest.mark.parametrize("suffix", ["", ".tar"])
def test_different_files_have_different_ids(suffix):
    paths = [stem + ending for stem, ending in itertools.product(STEMS, ENDINGS)]
    paths = [path for path in paths if not suffix or path.removesuffix(suffix) not in paths or path == ".tar"]
    assert len({id_of("source", path, suffix) for path in paths}) == len(set(paths))


@pytest.mark.parametrize(
    ("path", "suffix", "expected"),
    [
        ("cat.jpg", "", "x/cat.jpg"),
        ("./000/aa.jpg", "", "x/000/aa.jpg"),
        ("deep//cat.png", "", "x/deep/cat.png"),
        ("train.00001.tar", ".tar", "x/train.00001"),
        ("000.tgz", ".tar", "x/000.tgz"),
        ("deep/.tar", ".tar", "x/deep/.tar"),
    ],
)
def test_an_id_is_the_path(path, suffix, expected):
    assert id_of("x", path, suffix) == expected


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../a.jpg", "a/../../b.jpg", "caf\udce9.jpg"])
def test_what_is_no_path_makes_no_id(path):
    with pytest.raises(IdError, match="no path within the folder|not UTF-8"):
        id_of("x", path)


def first_rows(batches: list[list[str]]) -> list[list[int]]:
    """The same with a dict."""
    rows: dict[str, int] = {}
    found = []
    for batch in batches:
        found.append([])
        for one in batch:
            found[-1].append(rows.get(one, -1))
            rows.setdefault(one, len(rows))
    return found


@given(st.lists(st.lists(st.text("ab/", max_size=4), max_size=30), max_size=12))
def test_repetitions_are_found_as_a_dict_finds_them(batches):
    register = IdRegister()
    assert [register.add(batch).tolist() for batch in batches] == first_rows(batches)
    assert len(register) == len({one for batch in batches for one in batch})


def test_runs_beyond_the_largest_are_searched_too(monkeypatch):
    monkeypatch.setattr(ids_module, "LARGEST_RUN", 64)
    draw = np.random.default_rng(0)
    batches = [[f"id {number}" for number in draw.integers(0, 1500, 37)] for _ in range(60)]
    register = IdRegister()
    assert [register.add(batch).tolist() for batch in batches] == first_rows(batches)
    assert max(len(run.hashes) for run in register._runs) <= 128


def test_an_id_takes_twelve_bytes():
    register = IdRegister()
    for start in range(0, 200_000, 100):
        register.add([f"cc12m/{number // 10_000:05d}/{number:09d}" for number in range(start, start + 100)])
    kept = sum(run.hashes.nbytes + run.rows.nbytes for run in register._runs)
    assert kept == 12 * 200_000 and len(register._runs) < 20
    assert register.add(["cc12m/00007/000077777", "cc12m/other"]).tolist() == [77_777, -1]


def test_a_name_that_is_not_utf8_is_registered_all_the_same():
    assert IdRegister().add(["caf\udce9", "caf\udce8", "caf\udce9"]).tolist() == [-1, -1, 0]


def test_an_id_that_comes_twice_in_a_table_is_an_error_naming_both_rows():
    written: list[str] = []
    unique = UniqueIds("image_id", lambda: written)
    for batch in (["a", "b"], ["c"]):
        unique.check(batch)
        written += batch
    with pytest.raises(IdError, match="rows 1 and 4 have the same image_id 'b'"):
        unique.check(["d", "b"])
    with pytest.raises(IdError, match="rows 0 and 2 have the same id 'x'"):
        UniqueIds("id", list).check(["x", "y", "x"])


def test_equal_hashes_of_different_ids_are_no_error(monkeypatch):
    """And rows behind them keep their numbers."""
    monkeypatch.setattr(ids_module, "_digest", lambda value: len(value).to_bytes(8, "big"))
    written: list[str] = []
    unique = UniqueIds("image_id", lambda: written)
    for batch in (["a", "b", "aa"], ["c", "bb", "ccc"]):
        unique.check(batch)
        written += batch
    with pytest.raises(IdError, match="rows 4 and 7 have the same image_id 'bb'"):
        unique.check(["dd", "bb"])
