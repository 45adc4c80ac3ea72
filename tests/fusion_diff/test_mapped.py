"""Training sets that are mapped: the same as in memory, whatever happened to the scratch folder, in little memory."""

import logging
import shutil
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest
import torch

from bench.embedding import write_texts, write_vectors
from pipeline.artifacts import ArtifactError, ShardSet, ShardWriter, mapped, read_json, schemas, write_json
from pipeline.fusion_diff import ControlAdapter, ControlledPrior, ControlTask, Prior, PriorTask
from pipeline.fusion_diff.mapped import MappedConditions, MappedVectors, map_vectors
from pipeline.fusion_diff.tables import check_same_ids, open_conditions, open_vectors
from pipeline.training.loop import batch_indices

N = 23


def write(folder, schema, rows, rows_per_shard=5):
    writer = ShardWriter(folder, schema, {"encoder": "some"}, rows_per_shard)
    writer.write(pa.Table.from_pylist(rows, schema))
    writer.close()


def vector_rows(dim, rows=N, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((rows, dim), np.float32)
    return [{"id": f"p{row}", "vector": vector} for row, vector in enumerate(drawn.tolist())]


def text_rows(dim, rows=N, seed=1):
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 7, rows)
    return [
        {"id": f"p{row}", "tokens": count, "states": list(generator.standard_normal(count * dim).astype(np.float16))}
        for row, count in enumerate(counts.tolist())
    ]


@pytest.fixture
def folders(tmp_path, sizes):
    vectors, texts = tmp_path / "vectors", tmp_path / "texts"
    write(vectors, schemas.embeddings(sizes.dim), vector_rows(sizes.dim))
    write(texts, schemas.conditions(sizes.text_dim), text_rows(sizes.text_dim), rows_per_shard=4)
    return vectors, texts


def opened(folders, in_memory):
    ids, vectors, identity = open_vectors(folders[0], in_memory)
    text, _ = open_conditions(folders[1], ids, in_memory)
    return ids, vectors, text, identity


def test_batches_are_the_same_bit_for_bit(folders):
    memory, flat, again = opened(folders, 2**20), opened(folders, 0), opened(folders, 0)
    assert isinstance(memory[1], torch.Tensor) and not isinstance(memory[2], MappedConditions)
    for ids, vectors, text, identity in (flat, again):
        assert isinstance(vectors, MappedVectors) and isinstance(text, MappedConditions)
        assert list(ids) == memory[0] and len(ids) == N and identity == memory[3]
        assert vectors.shape == memory[1].shape and len(text) == N
        assert (text.dim, text.longest, text.mean_tokens) == (memory[2].dim, memory[2].longest, memory[2].mean_tokens)
        for step in range(8):  # over more than one epoch
            indices = batch_indices(N, 7, step, seed=3)
            assert torch.equal(vectors[indices], memory[1][indices])
            for multiple in (1, 4):
                for one, other in zip(
                    text.batch(indices, multiple=multiple), memory[2].batch(indices, multiple=multiple), strict=True
                ):
                    assert one.dtype == other.dtype and torch.equal(one, other)
        empty = torch.empty(0, dtype=torch.int64)
        assert vectors[empty].shape == (0, vectors.shape[1]) and text.batch(empty)[0].shape[0] == 0


@pytest.mark.parametrize("stage", ["prior", "control"])
def test_losses_are_the_same_bit_for_bit(folders, sizes, diffusion, stage):
    losses = []
    for in_memory in (2**20, 0):
        torch.manual_seed(0)
        prior = Prior(sizes)
        _, vectors, text, _ = opened(folders, in_memory)
        if stage == "prior":
            task = PriorTask(prior, diffusion, vectors, text, 0.3)
        else:
            task = ControlTask(ControlledPrior(prior, ControlAdapter(prior)), diffusion, vectors, vectors, text, 0.3)
        assert len(task) == N
        losses.append(task.loss(task.model, batch_indices(N, 9, 1, 0), torch.Generator().manual_seed(2), "cpu")[0])
    assert torch.equal(*losses)


def test_a_set_laid_out_is_only_mapped(folders, monkeypatch, caplog):
    opened(folders, 0)
    monkeypatch.setattr(mapped, "_lay_out", None)  # not called
    with caplog.at_level(logging.WARNING):
        opened(folders, 0)
    assert not caplog.records
    assert sorted(path.name for path in mapped.scratch(folders[1]).iterdir()) == [
        "layout.json",
        "lengths.npy",
        "lock",
        "offsets.npy",
        "states.npy",
    ]
    assert torch.equal(torch.from_numpy(np.load(mapped.scratch(folders[0]) / "vectors.npy")), opened(folders, 2**20)[1])


def cut(file):
    with file.open("r+b") as opened_file:
        opened_file.truncate(file.stat().st_size - 1)


def other_header(file):
    np.save(file, np.zeros((file.stat().st_size - 128) // 4, np.float32))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: cut(folder / "states.npy"), "states.npy is not what was written"),
        (lambda folder: other_header(folder / "states.npy"), "states.npy is not what was written"),
        (lambda folder: (folder / "offsets.npy").unlink(), "offsets.npy is not what was written"),
        (lambda folder: (folder / "layout.json").write_text("[]"), "made anew"),
        (lambda folder: (folder / "layout.json").write_text("{"), "not JSON"),
    ],
)
def test_a_damaged_scratch_folder_is_made_anew_with_one_line(folders, caplog, damage, message):
    _, _, text, _ = opened(folders, 0)
    before = text.batch(torch.arange(N))[0]
    damage(mapped.scratch(folders[1]))
    with caplog.at_level(logging.WARNING):
        _, _, again, _ = opened(folders, 0)
    assert len(caplog.records) == 1 and message in caplog.text and str(mapped.scratch(folders[1])) in caplog.text
    assert torch.equal(again.batch(torch.arange(N))[0], before)


def test_a_set_made_again_is_laid_out_again(folders, sizes, caplog):
    _, old, _, _ = opened(folders, 0)
    kept = old[torch.arange(N)]
    write(folders[0], schemas.embeddings(sizes.dim), vector_rows(sizes.dim, seed=5))
    with caplog.at_level(logging.WARNING):
        _, new, _, _ = opened(folders, 0)
    assert "made of other shards; it is made anew" in caplog.text
    assert torch.equal(new[torch.arange(N)], opened(folders, 2**20)[1])
    assert torch.equal(old[torch.arange(N)], kept)  # whoever still reads the old one is not disturbed


def test_a_killed_run_goes_on_behind_its_last_whole_shard(folders, monkeypatch):
    tables, seen = mapped._tables, []

    def failing(path):
        yield from tables(path)
        if path.name == "part-00003.parquet":
            raise KeyboardInterrupt

    monkeypatch.setattr(mapped, "THREADS", 1)
    monkeypatch.setattr(mapped, "_tables", failing)
    with pytest.raises(KeyboardInterrupt):
        map_vectors(ShardSet.open(folders[0]))
    assert not (mapped.scratch(folders[0]) / "layout.json").exists()
    with (mapped.scratch(folders[0]) / "progress.txt").open("a") as file:
        file.write("part-00")  # torn
    monkeypatch.setattr(mapped, "_tables", lambda path: (seen.append(path.name), tables(path))[1])
    vectors = map_vectors(ShardSet.open(folders[0]))
    assert "part-00003.parquet" in seen and set(seen) <= {
        "part-00003.parquet",
        "part-00004.parquet",
    }  # the last may have been under way
    assert torch.equal(vectors[torch.arange(N)], opened(folders, 2**20)[1])


def test_progress_in_a_file_that_is_not_whole_counts_for_nothing(folders):
    folder = mapped.scratch(folders[0])
    opened(folders, 0)
    made_of = (folder / "layout.json").read_text()
    (folder / "layout.json").unlink()
    (folder / "progress.txt").write_text(made_of + "\npart-00000.parquet\n")
    cut(folder / "vectors.npy")
    assert torch.equal(opened(folders, 0)[1][torch.arange(N)], opened(folders, 2**20)[1])


def test_several_at_once_lay_out_once(folders, monkeypatch):
    lay_out, calls, found = mapped._lay_out, [], []
    monkeypatch.setattr(mapped, "_lay_out", lambda *args: (calls.append(1), lay_out(*args))[1])
    threads = [threading.Thread(target=lambda: found.append(map_vectors(ShardSet.open(folders[0])))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(found) == 4


def refuses(tmp_path, vectors, texts, of_vectors, of_texts):
    """Laying out these rows, two at a time, ends with messages that match."""
    write(tmp_path / "vectors", schemas.embeddings(3), vectors)
    write(tmp_path / "texts", schemas.conditions(3), texts)
    with pytest.raises(ArtifactError, match=rf"vectors/part-00001.parquet, counted from row 2: {of_vectors}"):
        open_vectors(tmp_path / "vectors", 0)
    with pytest.raises(ArtifactError, match=rf"texts/part-00002.parquet, counted from row 2: {of_texts}"):
        open_conditions(tmp_path / "texts", [f"p{row}" for row in range(N)], 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_named(tmp_path, monkeypatch, bad):
    monkeypatch.setattr(mapped, "ROWS", 2)
    vectors, texts = vector_rows(3), text_rows(3)
    vectors[7]["vector"][1] = texts[13]["states"][2] = bad
    refuses(tmp_path, vectors, texts, r".*row 0 \(p7\) has a number", r".*row 1 \(p13\) has a number")


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "ROWS", 2)
    vectors, texts = vector_rows(3), text_rows(3)
    vectors[7]["vector"] = texts[13]["tokens"] = None
    refuses(tmp_path, vectors, texts, r"vectors: row 0 \(p7\) is missing", r".*row 1 \(p13\) has .* expected 0 tokens")


def test_a_shard_that_was_changed_is_refused(folders):
    shard = folders[0] / "part-00002.parquet"
    shard.write_bytes((folders[0] / "part-00001.parquet").read_bytes())
    with pytest.raises(ArtifactError, match="part-00002.parquet: content does not match the manifest's SHA-256"):
        open_vectors(folders[0], 0)


def test_rows_of_other_ids_are_refused(folders, tmp_path, sizes):
    ids, _, _, _ = opened(folders, 0)
    write(tmp_path / "other", schemas.conditions(sizes.text_dim), text_rows(sizes.text_dim, N - 1))
    with pytest.raises(ArtifactError, match="22 rows, but 23 belong to them"):
        open_conditions(tmp_path / "other", ids, 0)
    with pytest.raises(ArtifactError, match="row 0 is 'p0', but 'q' belongs there"):
        check_same_ids(folders[0], ids, ["q"] * N)


def test_a_disk_without_room_says_so_before_anything_is_written(folders, monkeypatch):
    monkeypatch.setattr(mapped.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match=r"No space left on device, 0.0 GiB are needed"):
        open_vectors(folders[0], 0)


def test_an_empty_set_is_mapped(tmp_path):
    write(tmp_path / "vectors", schemas.embeddings(3), [])
    ids, vectors, _ = open_vectors(tmp_path / "vectors", 0)
    assert list(ids) == [] and vectors.shape == (0, 3)


MEASURED = """
import sys
import numpy as np, torch
from pathlib import Path
from bench.machine import AnonymousPeak
from pipeline.artifacts import mapped
from pipeline.fusion_diff.tables import open_conditions, open_vectors
from pipeline.training.loop import batch_indices

mapped.THREADS, mapped.ROWS = 2, 32  # what is held at once is the same, however large the set
place, rows = Path(sys.argv[1]), int(sys.argv[2])
with AnonymousPeak() as peak:
    for _ in range(2):
        ids, vectors, _ = open_vectors(place / "vectors", 0)
        text, _ = open_conditions(place / "texts", ids, 0)
        for step in range(rows // 64):
            indices = batch_indices(rows, 64, step, 0)
            vectors[indices], text.batch(indices)
print(peak.grown_mib)
"""


def repeat(folder, times):
    """A set of one shard becomes one of as many, all alike."""
    shard = folder / "part-00000.parquet"
    manifest = read_json(folder / "manifest.json")
    for number in range(1, times):
        name = f"part-{number:05d}.parquet"
        shutil.copy(shard, folder / name)
        manifest["shards"].append(manifest["shards"][0] | {"name": name})
    write_json(folder / "manifest.json", manifest)


def test_memory_does_not_grow_with_the_set(tmp_path):
    rows, times, dim, tokens, width = 1000, 16, 512, 16, 384  # 31 + 188 MiB
    write_vectors(tmp_path / "vectors", rows, dim)
    write_texts(tmp_path / "texts", rows, tokens, width)
    repeat(tmp_path / "vectors", times)
    repeat(tmp_path / "texts", times)
    command = [sys.executable, "-c", MEASURED, str(tmp_path), str(rows * times)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(ended.stdout) < 0.5 * rows * times * (4 * dim + 2 * tokens * width) / 2**20, ended.stdout
