"""Texts from elsewhere: every form in which the same words arrive becomes the same text."""

from __future__ import annotations

import itertools
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.texts import TextError, clean_text, clean_texts, decode_text, file_encoding

WORDS = ("make it red", "un café crème", "ein Tännchen", "赤い家", "👩‍🚀 and 🏴󠁧󠁢󠁳󠁣󠁴󠁿", "می‌خواهم")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")


def dressed(words: str) -> dict[str, str]:
    """What editors, spreadsheets and web pages make of a text."""
    return {
        "as it is": words,
        "Windows' line end": words + "\r\n",
        "lines": words.replace(" ", "\r\n"),
        "tabs": "\t" + words.replace(" ", " \t "),
        "byte order mark": "\ufeff" + words,
        "a mark within": words[:2] + "\ufeff" + words[2:],
        "NUL": words[:1] + "\0" + words[1:] + "\0\0",
        "control characters": "\x01" + words + "\x1b\x7f\x90",
        "hard spaces": words.replace(" ", "\u00a0\u3000"),
        "direction marks": "\u200e" + words + "\u202c\u200b",
        "soft hyphen": words[:3] + "\u00ad" + words[3:],
        "separators": "\u2028" + words.replace(" ", "\u2029") + "\x85",
    }


@pytest.mark.parametrize("dress", list(dressed("")))
@pytest.mark.parametrize("words", WORDS)
def test_the_same_words_are_the_same_text(words, dress):
    for form, encoding in itertools.product(("NFC", "NFD"), ("", *ENCODINGS)):
        typed = unicodedata.normalize(form, dressed(words)[dress])
        text = clean_text(typed.encode(encoding) if encoding else typed)
        assert text == unicodedata.normalize("NFC", words), (form, encoding)


@given(st.text() | st.binary())
def test_any_text_becomes_one_line_that_stays_as_it_is(value):
    try:
        text = clean_text(value)
    except TextError:
        assert isinstance(value, bytes)
        return
    assert clean_text(text) == text == text.strip() and text.encode().decode() == text
    assert not any(unicodedata.category(one) in ("Cc", "Zl", "Zp", "Cs") for one in text)
    assert "\ufeff" not in text and "  " not in text


def test_half_a_character_from_json_can_be_written():
    assert clean_text(json.loads('"a \\ud83d b"')) == "a \ufffd b"
    assert clean_text(json.loads('"\\ud83d\\ude00"')) == "😀"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        (float("nan"), []),
        ("", []),
        (" \r\n", []),
        ("a dog", ["a dog"]),
        (b"a dog", ["a dog"]),
        (["a dog", "a cat"], ["a dog", "a cat"]),
        (("a dog", None, "", "a dog\n"), ["a dog"]),
        ([["a dog"], ["a cat", ["a hen"]]], ["a dog", "a cat", "a hen"]),
        ([], []),
    ],
)
def test_a_field_may_hold_no_text_one_or_several(value, expected):
    assert clean_texts(value) == expected
    if value is None or isinstance(value, str | list):
        assert clean_texts(json.loads(json.dumps(value))) == expected


NO_TEXTS = [(7, "number"), (0.5, "number"), (True, "boolean"), ({"caption": "a dog"}, "object")]


@pytest.mark.parametrize(("value", "name"), NO_TEXTS)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: ["a dog", value]], ids=["alone", "in a list"])
def test_what_is_no_text_is_not_written_out(value, name, wrap):
    with pytest.raises(TextError, match=f"a {name} where a text is expected"):
        clean_texts(wrap(value))


@pytest.mark.parametrize(("content", "encoding"), [(b"caf\xe9", "UTF-8"), (b"\xff\xfea\0b", "UTF-16")])
def test_bytes_that_are_no_text_name_the_encoding(content, encoding):
    with pytest.raises(TextError, match=f"not a text in {encoding}"):
        decode_text(content)


@pytest.mark.parametrize(("encoding", "words"), list(itertools.product(ENCODINGS, WORDS)))
def test_files_are_read_line_by_line_in_their_encoding(tmp_path, encoding, words):
    path = tmp_path / "captions.csv"
    path.write_bytes(f"image,caption\r\n0.jpg,{words}\r\n".encode(encoding))
    with path.open(encoding=file_encoding(path), newline="") as file:
        assert [line.strip() for line in file] == ["image,caption", f"0.jpg,{words}"]


def test_queries_of_a_user(shared):
    path = shared / "inputs" / "queries_bom_crlf.txt"
    if not path.is_file():
        pytest.skip("there is no folder ../shared/inputs")
    lines = [clean_text(line) for line in path.read_bytes().splitlines()]
    assert [line for line in lines if line] == ["make it red", "make it blue"]
