"""Every kind of index over a library follows its changes, and answers as a loop over all images does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.app.search.library import Library
from pipeline.app.search.library_index import LibraryIndex, open_library_index
from pipeline.app.search.library_milvus import MilvusLibraryIndex
from pipeline.app.search.library_rows import Entry
from pipeline.config import IndexParams
from pipeline.retrieval.filters import FilterError
from tests.sections import section

DIM = 16
KINDS = ["flat", "hnsw", "ivfpq", "milvus file", "milvus server"]


@pytest.fixture
def params(request) -> IndexParams:
    kind, _, place = request.param.partition(" ")
    uri = request.getfixturevalue(f"milvus_{place}") if place else "milvus.db"
    exact = {"nlist": 4, "nprobe": 4, "ef_search": 400, "refine_factor": 100}
    return section(IndexParams, kind=kind, uri=uri, **exact)


class Album:
    """A library, and beside it what it should hold."""

    def __init__(self, folder: Path):
        self.library = Library.create(folder / "library", folder)
        self.vectors: dict[str, np.ndarray] = {}
        self.fields: dict[str, dict] = {}
        self._random, self._contents = np.random.default_rng(0), 0

    def put(self, *names: str, **fields: object) -> None:
        """Images with new contents."""
        vectors = self._random.normal(size=(len(names), DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        hashes = [f"content {self._contents + number}" for number in range(len(names))]
        self._contents += len(names)
        self.library.store_vectors("clip", hashes, vectors)
        entries = [Entry(name, content, 10, 0, fields) for name, content in zip(names, hashes, strict=True)]
        self.library.commit(entries, spaces={"clip": {"model": "a"}})
        self.vectors |= dict(zip(names, vectors, strict=True))
        self.fields |= dict.fromkeys(names, fields)

    def describe(self, name: str, **fields: object) -> None:
        self.library.commit([replace(self.library.entries([name])[0], fields=fields)])
        self.fields[name] = fields

    def remove(self, *names: str) -> None:
        self.library.remove(names)
        for name in names:
            del self.vectors[name], self.fields[name]

    def best(self, query: np.ndarray, count: int, allowed=lambda fields: True) -> list[str]:
        """The answers of a loop."""
        scores = {name: float(v @ query) for name, v in self.vectors.items() if allowed(self.fields[name])}
        return sorted(scores, key=scores.get, reverse=True)[:count]

    def check(self, index) -> None:
        for query in self._random.normal(size=(4, DIM)).astype(np.float32):
            assert index.search(query[None], 10)[0][0] == self.best(query, 10)
            found = index.search(query[None], 10, among='year >= 2000 and not tag == "old"')[0][0]
            assert found == self.best(query, 10, lambda f: f.get("year", 0) >= 2000 and f.get("tag", "old") != "old")
        assert len(index) == len(self.vectors) and set(self.vectors) == {name for name in self.vectors if name in index}


@pytest.fixture
def album(tmp_path) -> Album:
    album = Album(tmp_path)
    album.put(*(f"{number}.png" for number in range(500)), year=1990, tag="old")
    album.put(*(f"more/{number}.png" for number in range(200)), year=2010, tag="new")
    album.put("no metadata.png", "quo\"te's.png", "ünï.png")
    return album


@pytest.mark.parametrize("params", KINDS, indirect=True)
def test_an_index_follows_its_library(album, params):
    index = open_library_index(album.library, "clip", params)
    assert isinstance(index, MilvusLibraryIndex if params.kind == "milvus" else LibraryIndex)
    album.check(index)
    album.put("added.png", year=2020, tag="new")
    album.put("3.png", year=2021, tag="new")  # another content in the place of the old one
    album.describe("7.png", year=2022, tag="new")
    album.remove("more/5.png", "more/6.png", "no metadata.png")
    album.check(index)
    album.put("more/5.png", year=2005, tag="new")
    album.check(index)
    album.check(open_library_index(Library.open(album.library.folder), "clip", params))  # as another process does
    album.remove(*(name for name in album.vectors if name.startswith("more/")))
    album.check(index)
    query = next(iter(album.vectors.values()))
    assert index.search(query[None], 3, ["0.png"])[0][0] == album.best(query, 4)[1:]
    assert index.search(query[None], 1000)[0][0] == album.best(query, 1000)
    with pytest.raises(FilterError, match="there is no field 'colour'; there are: date, path, size, tag, year"):
        index.search(query[None], 3, among='colour == "red"')


@pytest.mark.parametrize("params", KINDS, indirect=True)
def test_vectors_of_a_model_that_was_trained_anew_take_the_place_of_the_old_ones(album, params):
    open_library_index(album.library, "clip", params)
    library = album.library
    hashes = [entry.hash for entry in library.entries()]
    turned = np.stack([np.roll(album.vectors[name], 1) for name in library.ids])
    library.store_vectors(library.store_for("clip", {"model": "unfinished"}), hashes[:9], turned[:9])
    library.store_vectors(library.store_for("clip", {"model": "b"}), hashes, turned)
    album.check(open_library_index(library, "clip", params))  # until then, nothing has changed
    library.commit(spaces={"clip": {"model": "b"}})
    stored = library._rows("SELECT space, count(*) FROM vectors GROUP BY space")
    assert stored == [("clip", len(hashes))]
    album.vectors = dict(zip(library.ids, turned, strict=True))
    album.check(open_library_index(library, "clip", params))


@pytest.mark.parametrize("params", KINDS, indirect=True)
def test_a_library_that_was_emptied_answers_nothing_and_can_be_filled_again(album, params):
    index, query = open_library_index(album.library, "clip", params), np.ones((1, DIM), np.float32)
    album.remove(*album.vectors)
    assert index.search(query, 5) == ([[]], [[]])
    album.put(*(f"again/{number}.png" for number in range(100)), year=2010, tag="new")
    album.check(index)


@pytest.mark.parametrize("params", ["hnsw", "ivfpq"], indirect=True)
def test_a_kept_index_is_taken_up_and_a_damaged_one_made_again(album, params, monkeypatch):
    open_library_index(album.library, "clip", params)
    kept = album.library.folder / "index/clip"
    with monkeypatch.context() as patch:
        patch.setattr(LibraryIndex, "_start", lambda self: pytest.fail("it was made again"))
        album.check(open_library_index(album.library, "clip", params))
    for name in ("index.faiss", "slots.parquet", "manifest.json"):
        (kept / name).write_bytes(b"{}")
        album.check(open_library_index(album.library, "clip", params))


@pytest.mark.parametrize("params", ["hnsw"], indirect=True)
def test_one_more_image_does_not_write_the_whole_index_again(album, params):
    index = open_library_index(album.library, "clip", params)
    kept = album.library.folder / "index/clip/index.faiss"
    before = kept.read_bytes()
    album.put("one.png", year=2024, tag="new")
    album.check(index)
    assert kept.read_bytes() == before
    album.check(open_library_index(album.library, "clip", params))


@pytest.mark.parametrize("params", ["milvus file", "milvus server"], indirect=True)
def test_a_collection_that_is_lost_or_behind_is_written_again(album, params):
    index = open_library_index(album.library, "clip", params)
    index.collection.delete([1, 2, 3])
    index.collection.upsert([0], np.zeros((1, DIM)), [{"version": 1}])  # of another kind
    album.check(open_library_index(album.library, "clip", params))
    index.collection._asked("drop_collection", index.collection.name)
    album.check(open_library_index(album.library, "clip", params))


@pytest.mark.parametrize("params", ["milvus server"], indirect=True)
def test_processes_that_share_a_library_and_a_server(album, params, tmp_path):
    """Three begin at once; whichever is first fills the collection."""
    code = """
import json, sys
import numpy as np
from pipeline.app.search.library import Library
from pipeline.app.search.library_index import open_library_index
from pipeline.config import IndexParams
index = open_library_index(Library.open(sys.argv[1]), "clip", IndexParams(**json.loads(sys.argv[2])))
print(json.dumps(index.search(np.eye(1, 16, dtype=np.float32), 10)[0][0]))
"""
    command = [sys.executable, "-c", code, str(album.library.folder), json.dumps(vars(params))]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    expected = album.best(np.eye(1, DIM)[0], 10)
    assert [json.loads(process.communicate()[0]) for process in processes] == [expected] * 3
