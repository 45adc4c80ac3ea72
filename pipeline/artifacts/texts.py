"""One cleaning for every text that comes from outside: captions, CSV and JSON files, `.txt` members and queries."""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from pathlib import Path
from typing import Any

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and what they announce. UTF-32's begins like UTF-16's."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
_INVISIBLE = re.compile(r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]")
"""Marks for layout and direction. The joiners U+200C and U+200D stay: emoji and some scripts are spelled with them."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class TextError(ValueError):
    """Why something is no text, in words for the person who brought it."""


def clean_text(value: str | bytes) -> str:
    """A text as one line of visible characters.

    Line ends and other white space become single spaces. A byte order mark, control characters (NUL among them) and
    marks for layout are left out; halves of a character, which JSON can escape, become U+FFFD. The result is in
    Unicode's composed form (NFC), so that the same words are the same tokens whatever machine they were typed on.

    Args:
        value: The text, or its bytes in the encoding that its byte order mark announces, else UTF-8.

    Raises:
        TextError: The bytes are no text in that encoding.
    """
    text = decode_text(value) if isinstance(value, bytes) else value
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    text = _CONTROL.sub("", _INVISIBLE.sub("", _SURROGATE.sub("\ufffd", text)))
    return " ".join(unicodedata.normalize("NFC", text).split())


def clean_texts(value: Any) -> list[str]:
    """The texts that a field of a JSON or Parquet file holds: one, a list of several, or none.

    Empty texts are left out, and so are repetitions.

    Args:
        value: A text, a list of texts or nothing: None, or the NaN that some tools write instead.

    Raises:
        TextError: The value, or an element of it, is anything else. A number or an object is not written out.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str | bytes):
        text = clean_text(value)
        return [text] if text else []
    if isinstance(value, list | tuple):
        return list(dict.fromkeys(text for one in value for text in clean_texts(one)))
    raise TextError(f"a {_json_name(value)} where a text is expected")


def decode_text(content: bytes) -> str:
    """A file's bytes as text, without a byte order mark.

    Raises:
        TextError: The bytes are not in the encoding that their byte order mark announces, else in UTF-8.
    """
    encoding = text_encoding(content[:4])
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(f"not a text in {encoding.removesuffix('-sig').upper()} (byte {error.start})") from None


def text_encoding(head: bytes) -> str:
    """A file's encoding by its first four bytes, as `open` takes it: UTF-8 where no byte order mark says otherwise."""
    return next((encoding for mark, encoding in _ENCODINGS if head.startswith(mark)), "utf-8")


def file_encoding(path: Path) -> str:
    """`text_encoding` of a file, for readers that go through it line by line."""
    with path.open("rb") as file:
        return text_encoding(file.read(4))


def _json_name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "object" if isinstance(value, dict) else type(value).__name__
