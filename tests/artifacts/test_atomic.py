"""Atomic writes: all or nothing, also when the process is killed."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts import ArtifactError, StorageError, read_json, sha256_file, write_atomically, write_json
from pipeline.artifacts.atomic import settle, settle_only

KEYS = st.text(max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), write_atomically(path) as aside:
        aside.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), write_atomically(tmp_path / "folder") as aside:
        aside.mkdir()
        (aside / "part").write_text("half")
        raise KeyError
    assert names(tmp_path) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for name in ("first", "second"):
        with write_atomically(tmp_path / "folder") as aside:
            aside.mkdir()
            (aside / name).write_text(name)
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["second"]


STATES = ("old file", "partial written", "moved away", "replaced")


@pytest.mark.parametrize("state", range(4), ids=STATES)
def test_a_replacement_cut_off_at_any_step_is_settled(tmp_path, state):
    """What is there is the old folder or the new one, whole, and nothing beside it."""
    folder, aside, old = (tmp_path / name for name in ("folder", ".folder.partial", ".folder.old"))
    for path, content in ((folder, "old"), (aside, "new")):
        path.mkdir()
        (path / "file").write_text(content)
    if state == 0:
        shutil.rmtree(aside)
    if state >= 2:
        os.replace(folder, old)
    if state == 3:
        os.replace(aside, folder)
    settle(folder)
    assert names(tmp_path) == ["folder"] and (folder / "file").read_text() == ("old" if state < 2 else "new")


@pytest.mark.parametrize(
    "number, named", [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EFBIG, True), (errno.ENOENT, False)]
)
def test_a_full_disk_is_named_with_the_file_it_was_for(tmp_path, number, named):
    with pytest.raises(OSError) as raised, write_atomically(tmp_path / "file") as aside:
        aside.write_text("half")
        raise OSError(number, os.strerror(number))  # as a write reports it: without a name
    assert isinstance(raised.value, StorageError) == named and (str(tmp_path / "file") in str(raised.value)) == named
    assert names(tmp_path) == []


def test_missing_parents_are_made_and_an_old_remainder_goes(tmp_path):
    remainder = tmp_path / "a" / ".b.partial"
    remainder.mkdir(parents=True)
    (remainder / "half").write_text("half")
    with write_atomically(tmp_path / "a" / "b") as aside:
        aside.write_text("whole")
    assert names(tmp_path / "a") == ["b"]


def test_a_link_in_the_way_is_replaced_and_what_it_names_is_not(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    (tmp_path / "folder").symlink_to(kept)
    with write_atomically(tmp_path / "folder") as aside:
        aside.mkdir()
    assert names(kept) == ["file"] and not (tmp_path / "folder").is_symlink() and names(tmp_path) == ["folder", "kept"]


def test_a_killed_write_is_not_under_the_files_name(tmp_path):
    script = f"""
import os, signal
from pipeline.artifacts import write_atomically
with write_atomically({str(tmp_path / "file")!r}) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    child = subprocess.run([sys.executable, "-c", script], cwd=os.getcwd(), check=False)
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "file").exists()
    write_json(tmp_path / "file", 1)
    assert names(tmp_path) == ["file"]


@given(value=st.dictionaries(KEYS, JSON, max_size=4))
def test_json_round_trip_and_order_of_keys(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("json")
    write_json(folder / "a", value)
    write_json(folder / "b", dict(reversed(list(value.items()))))
    assert read_json(folder / "a") == value
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    assert (folder / "a").read_bytes().endswith(b"\n")


def test_what_json_cannot_hold_is_refused_and_leaves_nothing(tmp_path):
    for value in (float("nan"), float("inf"), {1, 2}):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "file", value)
    assert names(tmp_path) == []


def test_unreadable_json_is_named(tmp_path):
    path = tmp_path / "broken.json"
    with pytest.raises(ArtifactError, match="broken.json: no such file"):
        read_json(path)
    for content in (b'{"a": ', b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match="broken.json: not JSON"):
            read_json(path)
    path.write_text(json.dumps([1]))
    assert read_json(path) == [1]


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_file(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_has_no_name_is_removed(tmp_path):
    for name in ("kept", ".torn.old", "stale"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text(name)
    (tmp_path / "file").write_text("stale")
    settle_only(tmp_path, ["kept", "torn", "absent"])
    assert names(tmp_path) == ["kept", "torn"] and (tmp_path / "torn/part").read_text() == ".torn.old"
