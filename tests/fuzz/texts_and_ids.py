"""Texts and ids from elsewhere, against what a plain dict and the definition of a clean text say."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pipeline.artifacts.ids import IdError, IdRegister, UniqueIds, id_of
from pipeline.artifacts.texts import clean_text, clean_texts
from tests.fuzz.damage import ANY_JSON, damaged_bytes, damaged_json

CAPTIONS = {"caption": ["a cat", "a\r\ncat\0", "\ufeffa cat", "cafe\u0301", "", None, float("nan"), 3, {"text": "a"}]}
_WRITTEN = "\ufeffa cat\r\nand a\tdog\0 \u200bcafe\u0301 \U0001f431"
ENCODED = [_WRITTEN.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le")]
ENCODED.append("Caf\u00e9".encode("latin-1"))  # named as no UTF-8
_PARTS = st.text(st.sampled_from("ab.- é\0"), min_size=1, max_size=3) | st.sampled_from([".", "..", "", "\udcff"])
PATHS = st.lists(_PARTS, max_size=3).map("/".join) | st.sampled_from(
    ["a/b", "a//b", "./a/b", "/a", "cat.jpg", "cat.png"]
)
IDS = st.sampled_from([f"id {number}" for number in range(8)]) | st.text(max_size=2) | st.just("\ud800")


def damaged_captions() -> st.SearchStrategy[bytes]:
    """JSON of captions, damaged, or of anything."""
    return damaged_json(CAPTIONS) | ANY_JSON.map(lambda value: json.dumps({"caption": value}).encode())


def read_captions(content: bytes) -> None:
    """The texts of a JSON file are clean, distinct and the same whether they come alone or in lists."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):  # the readers' part
        return
    captions = value.get("caption") if isinstance(value, dict) else value
    texts = clean_texts(captions)
    assert len(set(texts)) == len(texts) and clean_texts([[captions]]) == texts
    for text in texts:
        assert text
        _check_clean(text)


def damaged_encoded() -> st.SearchStrategy[bytes]:
    """Files of text in several encodings."""
    return damaged_bytes(ENCODED)


def read_text(content: bytes) -> None:
    """A file's text is clean, and equal to that of the same text in UTF-8 with a byte order mark."""
    text = clean_text(content)
    _check_clean(text)
    assert clean_text(b"\xef\xbb\xbf" + text.encode()) == text


def _check_clean(text: str) -> None:
    assert clean_text(text) == text and " ".join(text.split()) == text
    assert unicodedata.is_normalized("NFC", text) and text.encode().decode() == text
    assert "\ufeff" not in text and not any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in text)


def paths() -> st.SearchStrategy[list[str]]:
    """Paths of files in one folder, some of them the same file."""
    return st.lists(PATHS, max_size=12)


def read_paths(given: Sequence[str]) -> None:
    """Paths have the same id exactly when they lead to the same file, and none leads out of the folder."""
    by_id: dict[str, tuple[str, ...]] = {}
    for path in given:
        try:
            found = id_of("source", path)
        except IdError:
            continue
        file = tuple(part for part in path.split("/") if part not in ("", "."))
        assert found.startswith("source/") and file and ".." not in file
        assert by_id.setdefault(found, file) == file, f"{found} is the id of {by_id[found]} and {file}"
    assert len(set(by_id.values())) == len(by_id)


def batches_of_ids() -> st.SearchStrategy[list[list[str]]]:
    """The ids of a table, as they are written: a few at a time."""
    return st.lists(st.lists(IDS, max_size=10), max_size=6)


def read_ids(batches: Sequence[Sequence[str]]) -> None:
    """`IdRegister` and `UniqueIds` say what a dict says."""
    register, rows = IdRegister(), dict[str, int]()
    for batch in batches:
        expected = []
        for one in batch:
            expected.append(rows.get(one, -1))
            rows.setdefault(one, len(rows))
        assert np.array_equal(register.add(batch), np.array(expected, np.int64))
        assert len(register) == len(rows)
    _check_unique(batches)


def _check_unique(batches: Sequence[Sequence[str]]) -> None:
    written: list[str] = []
    unique = UniqueIds("id", lambda: iter(written))
    for batch in batches:
        together = [*written, *batch]
        twice = next((row for row, one in enumerate(together) if one in together[:row]), None)
        error = _raised(lambda: unique.check(batch))  # noqa: B023 - called at once
        if twice is not None:
            rows = f"rows {together.index(together[twice])} and {twice} have the same id {together[twice]!r}"
            assert str(error) == rows
            return
        assert error is None
        written += batch


def _raised(call: Callable[[], Any]) -> IdError | None:
    try:
        call()
    except IdError as error:
        return error
    return None
