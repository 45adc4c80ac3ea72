"""`index_folder`: which files are found, which are rejected, and what a second run keeps."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.app.search.galleries import open_gallery
from pipeline.app.search.indexing import index_folder, usual_methods
from pipeline.app.search.library import Library
from pipeline.artifacts import ArtifactError
from pipeline.artifacts.rejections import find_rejections, read_rejections
from pipeline.config import ParameterError, load_params
from pipeline.query import registry
from pipeline.query.spaces import ImageEmbedder


@pytest.fixture
def folder(in_project, tmp_path) -> Path:
    """Twelve images, copied out of the project's."""
    photos = tmp_path / "images"
    for number, path in enumerate(sorted(Path("photos").rglob("t*.png"))[:12]):
        target = photos / ("deep/down" if number % 2 else "") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return photos


def content(folder: Path) -> dict[str, bytes]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".sqlite-wal", ".sqlite-shm")
    ]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def vectors_of(folder: Path, space: str = "clip") -> dict[str, np.ndarray]:
    parts = Library.open(folder).vectors(space)
    return {name: vector for _, ids, vectors in parts for name, vector in zip(ids, vectors, strict=True)}


def test_the_projects_folder_was_indexed_for_the_usual_methods(in_project):
    gallery = open_gallery("photos")
    assert gallery.spaces == ["clip", "diffcomp", "fused"]
    assert "words.png" not in gallery.ids and len(gallery.ids) == len(list(Path("photos").rglob("t*.png")))
    assert any(name.startswith("more/") for name in gallery.ids)
    rejected = pq.read_table("photos/.cir/rejected.parquet").to_pylist()
    assert [(row["image_id"], "in no known format" in row["reason"]) for row in rejected] == [("words.png", True)]
    assert str(in_project).encode() not in b"".join(path.read_bytes() for path in Path("photos/.cir").rglob("*.*"))


def test_vectors_are_those_of_the_benchmarks_stage(in_project, tables):
    """The same images, through the job of a folder and through the gallery stage's encoder."""
    from pipeline.encoders.batching import encode_in_batches
    from pipeline.encoders.dual.open import load_dual_encoder
    from pipeline.encoders.embedding.dual_gallery import encode_images
    from pipeline.encoders.image_source import ImageTable

    images = ImageTable("data/benchmarks/emoji_cir/images")
    encoder = load_dual_encoder("models/backbones/clip").eval()
    expected = encode_in_batches(lambda ids: encode_images(encoder, images, ids), images.ids[:5], 5, "")
    rows = {Path(name).stem: vector for name, vector in vectors_of(Path("photos")).items()}
    found = np.array([rows[name.replace("/", "_")] for name in images.ids[:5]])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_second_run_encodes_nothing_and_changes_no_byte(folder, monkeypatch):
    params = load_params()
    index_folder(folder, params, methods=["slerp"])
    before = content(folder)

    def fail(self, inputs):
        raise AssertionError("encoded again")

    monkeypatch.setattr(ImageEmbedder, "embed", fail)
    index_folder(folder, params, methods=["slerp"])
    assert content(folder) == before


def test_a_killed_run_goes_on_behind_its_last_shard(folder, monkeypatch):
    params = load_params()
    params.embedder.batch_size = 2
    monkeypatch.setattr("pipeline.app.search.indexing.ROWS_AT_ONCE", 4)
    whole = index_folder(folder, params, folder.parent / "whole", ["slerp"])
    embed, seen = ImageEmbedder.embed, []

    def killed(self, inputs):
        seen.append(len(inputs))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return embed(self, inputs)

    monkeypatch.setattr(ImageEmbedder, "embed", killed)
    with pytest.raises(KeyboardInterrupt):
        index_folder(folder, params, folder.parent / "killed", ["slerp"])
    with pytest.raises(ArtifactError, match="no finished index"):
        open_gallery(folder.parent / "killed")
    seen.clear()
    seen.extend([0] * 10)
    index_folder(folder, params, folder.parent / "killed", ["slerp"])
    assert len(seen) - 10 == 4  # two shards of two batches were left
    expected, found = vectors_of(whole.library), vectors_of(folder.parent / "killed")
    assert list(found) == list(expected)
    np.testing.assert_array_equal([*found.values()], [*expected.values()])


def test_a_changed_file_is_encoded_anew_and_nothing_else(folder, monkeypatch):
    params = load_params()
    index_folder(folder, params, methods=["slerp"])
    before = vectors_of(folder)
    changed, renamed, gone, *_ = before
    Image.new("RGB", (64, 64), "green").save(folder / changed)
    (folder / renamed).rename(folder / "renamed.png")
    (folder / gone).unlink()
    embed, seen = ImageEmbedder.embed, []
    monkeypatch.setattr(ImageEmbedder, "embed", lambda self, inputs: seen.extend(inputs) or embed(self, inputs))
    done = index_folder(folder, params, methods=["slerp"])
    assert (done.images, done.added, done.updated, done.removed, len(seen)) == (11, 1, 1, 2, 1)
    after = vectors_of(folder)
    assert set(after) == set(before) - {renamed, gone} | {"renamed.png"}
    np.testing.assert_array_equal(after["renamed.png"], before[renamed])
    assert not np.allclose(after[changed], before[changed])


def test_what_cannot_be_read_is_listed_and_the_rest_indexed(folder, make_bomb):
    (folder / "empty.jpg").touch()
    (folder / "huge.png").write_bytes(make_bomb(9000, 8000))
    Image.new("RGB", (500, 2)).save(folder / "strip.png")
    (folder / "notes.txt").write_text("no image, and not called one")
    done = index_folder(folder, load_params(), methods=["image_only"])
    reasons = {row.id: row.reason for row in done.rejected}
    assert done.images == 12
    assert sorted(reasons) == ["empty.jpg", "huge.png", "notes.txt", "strip.png"]
    assert "no bytes" in reasons["empty.jpg"] and "in no known format" in reasons["notes.txt"]
    assert "9000 x 8000 pixels, at most" in reasons["huge.png"] and "more than 100 times" in reasons["strip.png"]
    listed = [row for path in find_rejections(folder) for row in read_rejections(path)]
    assert {row.id: row.reason for row in listed} == reasons


def test_what_is_no_image_may_change_without_an_image_being_encoded_anew(folder, monkeypatch):
    params = load_params()
    index_folder(folder, params, methods=["slerp"])

    def fail(self, inputs):
        raise AssertionError("encoded again")

    monkeypatch.setattr(ImageEmbedder, "embed", fail)
    (folder / ".DS_Store").write_bytes(b"new")
    (folder / "notes.txt").write_text("new, too")
    done = index_folder(folder, params, methods=["slerp"])
    assert done.images == 12 and len(done.rejected) == 2
    (folder / "notes.txt").unlink()
    assert [row.id for row in index_folder(folder, params, methods=["slerp"]).rejected] == [".DS_Store"]


def test_an_untrained_variant_is_left_out_or_named(folder, monkeypatch):
    params = load_params()
    monkeypatch.setattr("pipeline.query.models.DIFFCOMP", Path("models/nowhere"))
    monkeypatch.setattr("pipeline.app.search.indexing.usual_methods", lambda params: ["diffcomp", "slerp"])
    done = index_folder(folder, params)
    assert done.spaces == ["clip"] and "not trained yet" in done.left_out["diffcomp"]
    with pytest.raises(ArtifactError, match="models/nowhere"):
        index_folder(folder, params, methods=["diffcomp"])
    with pytest.raises(ParameterError, match="'magic' is not one of "):
        index_folder(folder, params, methods=["magic"])


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        (["diffcomp_row1", "diffcomp", "diffcomp_relative"], ["diffcomp_relative"]),
        (["diffcomp_row1", "diffcomp"], ["diffcomp"]),
        ([], []),
    ],
)
def test_the_usual_methods_are_one_of_every_group_and_those_without_training(in_project, variants, expected):
    params = load_params()
    params.diffcomp_variants = {name: {} for name in variants}
    found, methods = usual_methods(params), registry.methods(params)
    assert [name for name in found if name in variants] == expected
    assert "fusion_diff" in found and "stage1_only" not in found
    assert {name for name, method in methods.items() if not method.weights} <= set(found)


def test_folders_without_images(in_project, tmp_path, make_bomb):
    params = load_params()
    with pytest.raises(ArtifactError, match="no such folder"):
        index_folder(tmp_path / "no", params)
    with pytest.raises(ArtifactError, match="there is no image"):
        index_folder(tmp_path, params)
    (tmp_path / "a.png").write_text("words")
    with pytest.raises(ArtifactError, match=r"no image among 1 files \(first: a.png: .*in no known format"):
        index_folder(tmp_path, params, methods=["slerp"])
    (tmp_path / "a.png").write_bytes(make_bomb(9000, 8000))
    with pytest.raises(ArtifactError, match="none of 1 images can be read; `cir rejected"):
        index_folder(tmp_path, params, methods=["slerp"])


def test_nothing_outside_the_gallery_is_read(folder, tmp_path):
    index_folder(folder, load_params(), methods=["slerp"])
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    gallery = open_gallery(folder)
    for name in ("../secret.png", str(secret), "", "/etc/passwd", "deep"):
        with pytest.raises(ArtifactError, match="no image of this gallery"):
            gallery.image(name)
    first = gallery.ids[0]
    (folder / first).unlink()
    (folder / first).symlink_to(secret)
    with pytest.raises(ArtifactError, match="leads out of the gallery"):
        gallery.image(first)
    assert gallery.id_of(secret) is None and gallery.id_of(folder / gallery.ids[1]) == gallery.ids[1]
