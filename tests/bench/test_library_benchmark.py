"""The benchmark of libraries on a few images."""

import pytest

from bench.library import KINDS, main
from pipeline.artifacts import read_json


def test_every_kind_follows_and_answers(tmp_path):
    pytest.importorskip("milvus_lite", reason="the extra `milvus` is not installed")
    main(images=24, add=3, out=tmp_path / "library.json")
    found = read_json(tmp_path / "library.json")
    assert (found["images"], found["added"]) == (24, 3)
    assert 0 < found["add_named_files"]["share_of_a_whole_index"] < 1
    assert {name: kind["recall@10"] for name, kind in found["kinds"].items()} == dict.fromkeys(KINDS, 1.0)
