"""Texts laid out as a flat file: the same texts, made once, whatever their number of bytes."""

from __future__ import annotations

import multiprocessing
import pickle

import pytest

from pipeline.artifacts.columns import CONTENT, map_bytes, map_texts

WORDS = ["", "a red apple", "ein Bär 🐻", "x" * 5_000, ""]


def test_every_text_is_read_back(tmp_path):
    texts = map_texts(tmp_path / "texts", {"manifest": "1"}, lambda: iter(WORDS))
    assert list(texts) == WORDS and texts[1:3] == WORDS[1:3] and texts[-2] == WORDS[-2] and len(texts) == 5
    with pytest.raises(IndexError):
        texts[5]


@pytest.mark.parametrize("words", [[], [""]])
def test_nothing_and_empty_texts_are_columns_too(tmp_path, words):
    assert list(map_texts(tmp_path, {}, lambda: words)) == words


def test_texts_are_laid_out_once_for_what_they_are_made_of(tmp_path):
    map_texts(tmp_path, {"manifest": "1"}, lambda: WORDS)
    assert list(map_texts(tmp_path, {"manifest": "1"}, lambda: ["other"])) == WORDS
    assert list(map_texts(tmp_path, {"manifest": "2"}, lambda: ["other"])) == ["other"]


def test_a_layout_that_broke_off_or_was_cut_is_made_again(tmp_path):
    def broken():
        yield "one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_texts(tmp_path, {}, broken)
    assert list(map_texts(tmp_path, {}, lambda: WORDS)) == WORDS
    (tmp_path / CONTENT).write_bytes(b"a red")
    assert list(map_texts(tmp_path, {}, lambda: WORDS)) == WORDS


def _read(folder, queue):
    queue.put(list(map_texts(folder, {}, lambda: WORDS)))


def test_processes_share_one_layout(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_read, args=(tmp_path, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [WORDS] * 3
    for process in processes:
        process.join()


def test_bytes_are_read_back_here_and_in_another_process(tmp_path):
    values = [b"", b"\xff\xd8 no text", bytes(range(256))]
    column = map_bytes(tmp_path, {}, lambda: values)
    assert list(column) == list(pickle.loads(pickle.dumps(column))) == values
    assert len(pickle.dumps(column)) < 1_000, "what is mapped does not travel"
