"""The embedding job: order, resuming hash for hash, rejected rows, equal inputs."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import threading
import time
import weakref
from functools import partial
from unittest.mock import MagicMock

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.artifacts import ArtifactError, ShardSet
from pipeline.encoders.embedding.ahead import one_ahead
from pipeline.encoders.embedding.job import run_job
from pipeline.encoders.embedding.options import JobOptions
from pipeline.encoders.embedding.rejected import REJECTED, rejected_images
from pipeline.encoders.embedding.rows import EncoderRow, EncodingError, decode
from pipeline.encoders.embedding.vectors import embedding_job
from pipeline.fusion_diff.tables import read_vectors


class KilledError(Exception):
    pass


class Counting:
    """f_M that counts its inputs and dies after so many calls."""

    def __init__(self, mllm, calls: int = 10**9):
        self.mllm, self.dim, self.calls, self.seen = mllm, mllm.dim, calls, []

    def embed(self, inputs):
        if not self.calls:
            raise KilledError
        self.calls -= 1
        self.seen.append(len(inputs))
        return self.mllm.embed(inputs)


def hashes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def run(make):
    return partial(run_rows, make.reader)


def run_rows(reader, rows, mllm, folder, **options):
    return run_job(
        reader(rows), embedding_job(mllm), folder, {"of": "test"}, JobOptions(3, rows_per_shard=7, **options)
    )


def test_vectors_are_those_of_the_encoder_in_the_rows_order(make, tiny_mllm, tmp_path, run):
    rows = make.rows(17)
    counting = Counting(tiny_mllm)
    assert run(rows, counting, tmp_path / "set").rows == 17
    assert counting.seen == [3, 3, 1, 3, 3, 1, 3], "a shard's end ends a batch"
    ids, vectors, identity = read_vectors(tmp_path / "set")
    assert ids == [row.id for row in rows] and identity == {"of": "test", "batch_size": 3}
    alone = np.concatenate([tiny_mllm.embed([decode(row)]) for row in rows])
    np.testing.assert_allclose(vectors.numpy(), alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)


def test_the_bar_moves_with_every_batch(make, tiny_mllm, tmp_path, run, monkeypatch):
    bar = MagicMock()
    monkeypatch.setattr("pipeline.encoders.embedding.job.tqdm", bar)
    run(make.rows(10), tiny_mllm, tmp_path / "set")
    moves = bar.return_value.__enter__.return_value.update.mock_calls
    assert [rows for (rows,) in (move.args for move in moves) if rows] == [3, 3, 1, 3]


@pytest.mark.parametrize(("calls", "left"), [(0, 14), (1, 14), (2, 8), (3, 8), (4, 3)])
def test_a_resumed_run_equals_an_undisturbed_one_hash_for_hash(make, tiny_mllm, tmp_path, calls, left, run):
    rows = make.rows(17)
    rows[2] = rows[7] = rows[8] = dataclasses.replace(rows[2], image=b"no image")
    run(rows, tiny_mllm, tmp_path / "whole", max_rejected_share=0.5)
    with pytest.raises(KilledError):
        run(rows, Counting(tiny_mllm, calls), tmp_path / "killed", max_rejected_share=0.5)
    assert not (tmp_path / "killed" / "manifest.json").exists()
    again = Counting(tiny_mllm)
    run(rows, again, tmp_path / "killed", max_rejected_share=0.5)
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")
    assert sum(again.seen) == left, "a finished shard (of 6, 5 and 3 rows) is not encoded again"


@pytest.mark.parametrize("bad", [range(7), range(7, 14), range(3, 16), range(14, 17), [6, 13, 16]])
@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_resuming_finds_its_place_among_slices_that_were_rejected_whole(make, tiny_mllm, tmp_path, bad, calls, run):
    rows = make.rows(17)
    for number in bad:
        rows[number] = dataclasses.replace(rows[number], image=b"no image")
    run(rows, tiny_mllm, tmp_path / "whole", max_rejected_share=0.9)
    assert ShardSet.open(tmp_path / "whole").table()["id"].to_pylist() == [
        f"row-{n}" for n in range(17) if n not in bad
    ]
    with contextlib.suppress(KilledError):
        run(rows, Counting(tiny_mllm, calls), tmp_path / "killed", max_rejected_share=0.9)
    run(rows, tiny_mllm, tmp_path / "killed", max_rejected_share=0.9)
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_threads_that_decode_ahead_change_nothing(make, tiny_mllm, tmp_path, workers, run):
    rows = make.rows(23)
    rows[4] = dataclasses.replace(rows[4], image=b"no image")
    rows[11], rows[12] = (dataclasses.replace(rows[3], id=rows[n].id) for n in (11, 12))
    run(rows, tiny_mllm, tmp_path / "some", max_rejected_share=0.5, workers=workers)
    run(rows, tiny_mllm, tmp_path / "two", max_rejected_share=0.5)
    assert hashes(tmp_path / "some") == hashes(tmp_path / "two")


def test_while_a_batch_is_encoded_one_more_is_put_together_and_no_more_than_a_few_rows_are_decoded(make, tmp_path):
    decoded, seen = [], []

    class Slow:
        dim = 4

        def embed(self, inputs):
            most = min(30, 5 * (len(seen) + 2) + 5)  # a batch more, and at most as many rows ahead of it
            patience = time.monotonic() + 10
            while len(decoded) < most - 1 and time.monotonic() < patience:  # a thread takes two at once
                time.sleep(0.01)
            time.sleep(0.05)  # for more than expected
            seen.append(len(decoded) - most)
            return np.ones((len(inputs), 4), np.float32)

    def note(row):
        decoded.append(row.id)
        return decode(row)

    options = JobOptions(5, rows_per_shard=10, workers=1)
    run_job(make.reader(make.rows(30)), embedding_job(Slow(), note), tmp_path, {}, options)
    assert sorted(decoded) == sorted(row.id for row in make.rows(30))
    assert len(seen) == 6 and set(seen) <= {-1, 0}


def test_a_rejected_row_keeps_no_batch_in_memory(make, tmp_path):
    """Without the garbage collector: prepared images are large, and it comes late."""
    alive = []

    class Noting:
        dim = 4

        def embed(self, inputs):
            alive.append(sum(ref() is not None for ref in refs))
            refs.extend(map(weakref.ref, inputs))
            return np.ones((len(inputs), 4), np.float32)

    refs, rows = [], make.rows(60)
    for number in range(0, 60, 7):
        rows[number] = dataclasses.replace(rows[number], image=b"no image")
    gc.collect()
    gc.disable()
    try:
        run_job(make.reader(rows), embedding_job(Noting()), tmp_path, {}, JobOptions(5, 20, 2, 0.5))
    finally:
        gc.enable()
    assert max(alive) <= 5, "of the batch before, at most"


@pytest.mark.parametrize(("batch", "workers"), [(4, 4), (8, 8), (16, 4), (64, 2)])
def test_all_threads_decode_however_small_the_batch(make, tmp_path, batch, workers):
    """They wait for each other, so fewer would wait for ever."""
    together = threading.Barrier(workers)

    def decode_together(row):
        with contextlib.suppress(threading.BrokenBarrierError):  # at the end a group may be alone
            together.wait(timeout=2 if row.id == "row-0" else 10)
            if row.id == "row-0":
                together.abort()
                met.append(row.id)
        return decode(row)

    class Ones:
        dim = 4

        def embed(self, inputs):
            return np.ones((len(inputs), 4), np.float32)

    met = []
    job = embedding_job(Ones(), decode_together)
    run_job(make.reader(make.rows(2 * batch)), job, tmp_path, {}, JobOptions(batch, workers=workers))
    assert met == ["row-0"]


def test_what_making_a_batch_raises_comes_after_the_batches_before_it(make, tmp_path):
    encoded = []

    class Noting:
        dim = 4

        def embed(self, inputs):
            encoded.append(len(inputs))
            return np.ones((len(inputs), 4), np.float32)

    rows = make.rows(30)

    def torn(row):
        if row.id == rows[13].id:
            raise OSError("the archive ends here")
        return decode(row)

    with pytest.raises(OSError, match="the archive ends here"):
        options = JobOptions(5, rows_per_shard=10, workers=2)
        run_job(make.reader(rows), embedding_job(Noting(), torn), tmp_path, {}, options)
    assert encoded == [5, 5]
    assert len(list(tmp_path.glob("*.parquet"))) == 1, "the first shard was whole"


def test_one_ahead_makes_the_next_item_while_one_is_used_and_stops_when_it_is_closed():
    made = []

    def items():
        for number in range(9):
            made.append(number)
            yield number

    ahead = one_ahead(items())
    assert made == [], "nothing is made before it is wanted"
    for wanted in range(3):
        assert next(ahead) == wanted
    ahead.close()
    assert made == [0, 1, 2, 3]
    assert list(one_ahead(items())) == list(range(9)) and list(one_ahead(iter([]))) == []


def test_what_making_an_item_raises_is_told_in_its_place():
    def parts():
        yield [1]
        yield [2]
        raise ArtifactError("image 'x' is not there")

    read = one_ahead(parts())
    assert [next(read), next(read)] == [[1], [2]]
    with pytest.raises(ArtifactError, match="image 'x'"):
        next(read)


def test_killed_again_before_anything_was_saved_the_rejected_rows_are_remembered(make, tiny_mllm, tmp_path, run):
    rows = make.rows(17)
    rows[2] = dataclasses.replace(rows[2], image=b"no image")
    run(rows, tiny_mllm, tmp_path / "whole", max_rejected_share=0.5)
    for calls in (4, 0):  # the first shard takes three
        with pytest.raises(KilledError):
            run(rows, Counting(tiny_mllm, calls), tmp_path / "killed", max_rejected_share=0.5)
    run(rows, tiny_mllm, tmp_path / "killed", max_rejected_share=0.5)
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


def test_rejections_of_an_earlier_identity_go(make, tiny_mllm, tmp_path):
    rows = make.rows(5)
    rows[1] = dataclasses.replace(rows[1], image=b"no image")
    job, tolerant = embedding_job(tiny_mllm), JobOptions(3, max_rejected_share=0.5)
    run_job(make.reader(rows), job, tmp_path, {"of": "bad"}, tolerant)
    assert (tmp_path / REJECTED).exists()
    run_job(make.reader(make.rows(5)), job, tmp_path, {"of": "good"}, tolerant)
    assert not (tmp_path / REJECTED).exists()


def test_a_finished_set_is_not_encoded_again(make, tiny_mllm, tmp_path, run):
    rows = make.rows(16)
    run(rows, tiny_mllm, tmp_path)
    before = hashes(tmp_path)
    run(rows, Counting(tiny_mllm, 0), tmp_path)
    assert hashes(tmp_path) == before


def test_a_damaged_shard_of_a_finished_set_is_encoded_again(make, run, tiny_mllm, tmp_path):
    run(make.rows(16), tiny_mllm, tmp_path)
    before = hashes(tmp_path)
    shard = tmp_path / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"X")
    counting = Counting(tiny_mllm)
    run(make.rows(16), counting, tmp_path)
    assert hashes(tmp_path) == before and sum(counting.seen) == 9


def test_another_identity_starts_anew(make, tiny_mllm, tmp_path, run):
    run(make.rows(7), tiny_mllm, tmp_path)
    counting = Counting(tiny_mllm)
    options = JobOptions(3, rows_per_shard=7)
    run_job(make.reader(make.rows(7)), embedding_job(counting), tmp_path, {"of": "something else"}, options)
    assert sum(counting.seen) == 7


def test_a_bad_row_is_an_error_naming_it(make, tiny_mllm, tmp_path, run):
    rows = make.rows(6)
    rows[4] = dataclasses.replace(rows[4], image=make.png(1)[:60])
    with pytest.raises(EncodingError, match=r"row 'row-4': the image cannot be decoded.*max_rejected_share is 0"):
        run(rows, tiny_mllm, tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_bad_rows_are_kept_with_their_reasons_up_to_a_share(make, tiny_mllm, tmp_path, run):
    rows = make.rows(10)
    rows[3] = dataclasses.replace(rows[3], image=b"")
    rows[9] = dataclasses.replace(rows[9], image=b"GIF89a nonsense")
    run(rows, tiny_mllm, tmp_path, max_rejected_share=0.2)
    kept = [row.id for number, row in enumerate(rows) if number not in (3, 9)]
    assert ShardSet.open(tmp_path).table()["id"].to_pylist() == kept
    rejected = pq.read_table(tmp_path / REJECTED).to_pylist()
    assert [(entry["row"], entry["id"]) for entry in rejected] == [(3, "row-3"), (9, "row-9")]
    assert "no bytes" in rejected[0]["reason"] and "decoded" in rejected[1]["reason"]
    assert rejected_images(tmp_path) == {"image-3", "image-9"}
    with pytest.raises(EncodingError, match="row-9.*2 of 10"):
        run(rows, tiny_mllm, tmp_path, max_rejected_share=0.1)


def test_equal_inputs_of_a_shard_are_encoded_once(make, tiny_mllm, tmp_path, run):
    rows = [dataclasses.replace(make.rows(2)[n % 2], id=f"row-{n}") for n in range(7)]
    counting = Counting(tiny_mllm)
    run(rows, counting, tmp_path)
    assert counting.seen == [2]
    _, vectors, _ = read_vectors(tmp_path)
    assert (
        (vectors[::2] == vectors[0]).all() and (vectors[1::2] == vectors[1]).all() and (vectors[0] != vectors[1]).any()
    )


def test_nothing_to_encode_is_an_error(tiny_mllm, tmp_path, run):
    with pytest.raises(ArtifactError, match="no rows"):
        run([], tiny_mllm, tmp_path)


def test_a_vector_that_is_not_finite_is_an_error_naming_the_row(tmp_path, run):
    class Broken:
        dim = 4

        def embed(self, inputs):
            return np.array([[np.nan if one.text == "bad" else 1.0] * 4 for one in inputs], np.float32)

    rows = [EncoderRow("fine", "good"), EncoderRow("wrong", "bad")]
    with pytest.raises(EncodingError, match="'wrong'.*not finite"):
        run(rows, Broken(), tmp_path)


class Starting(Counting):
    """f_M whose engine has to be started."""

    started: tuple[str, ...] = ()

    def start(self, task):
        assert not self.seen, "before the first row"
        self.started += (task,)


def test_an_engine_starts_before_the_first_row_and_not_for_a_finished_set(make, tiny_mllm, tmp_path, run):
    first, second = Starting(tiny_mllm), Starting(tiny_mllm)
    run(make.rows(5), first, tmp_path)
    run(make.rows(5), second, tmp_path)
    assert first.started == ("embed",) and not second.started
