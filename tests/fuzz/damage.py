"""Ways in which outside data is not what it should be: bytes, JSON and text, damaged a little or made up."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        ["", ".", "..", "../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "${seed}", "???", "nan", -1, 0, 10**400]
    )
)
YAML = (
    "[",
    "{",
    "&a",
    "*a",
    "!!python/object/apply:os.getpid []",
    "${runtime}",
    "${seed",
    "???",
    "0x",
    "- a",
    "1e999",
    "2020-01-01",
)
ANY_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """One of `whole` with some bytes changed, cut out, doubled or cut off; now and then no part of it at all."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=64))
    content = bytearray(draw(st.sampled_from(whole)))
    for kind in draw(
        st.lists(st.sampled_from(("flip", "set", "cut", "double", "end", "insert")), min_size=1, max_size=4)
    ):
        if not content:
            break
        # Headers are where most is decided.
        at = draw(st.integers(0, min(len(content) - 1, 64)) | st.integers(0, len(content) - 1))
        length = draw(st.integers(1, 32))
        if kind == "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            content[at : at + 4] = draw(
                st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1"])
            )
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "double":
            content[at:at] = content[at : at + length]
        elif kind == "end":
            del content[at:]
        else:
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(content)


@st.composite
def damaged_json(draw: st.DrawFn, whole: Any) -> bytes:
    """A JSON file in which some value, key or item is another, is missing or comes twice; or whose text is damaged."""
    content = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        content = _damaged(draw, content)
    text = json.dumps(content).encode()
    how = draw(st.integers(0, 11))
    if how == 0:
        return draw(damaged_bytes([text]))
    if how == 1:
        depth = draw(st.sampled_from((10, 100_000)))
        return b"[" * depth + b"]" * depth
    return text


def _damaged(draw: st.DrawFn, content: Any) -> Any:
    if not isinstance(content, dict | list) or not content or draw(st.integers(0, 5)) == 0:
        return draw(ANY_JSON)
    keys = list(content) if isinstance(content, dict) else range(len(content))
    key = draw(st.sampled_from(list(keys)[:8]))
    how = draw(st.sampled_from(("inside", "inside", "inside", "gone", "other", "twice")))
    if how == "gone":
        del content[key]
    elif how == "other":
        content[key] = draw(ANY_JSON)
    elif how == "twice" and isinstance(content, list):
        content.append(copy.deepcopy(content[key]))
    else:
        content[key] = _damaged(draw, content[key])
    return content


@st.composite
def damaged_text(draw: st.DrawFn, whole: str) -> bytes:
    """Lines of a text file left out, doubled, swapped, indented otherwise, or with another value."""
    lines = whole.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(("gone", "twice", "indent", "value", "line")))
        if how == "gone" and len(lines) > 1:
            del lines[at]
        elif how == "twice":
            lines.insert(at, lines[at])
        elif how == "indent":
            lines[at] = " " * draw(st.integers(0, 5)) + lines[at].lstrip()
        elif how == "value":
            value = draw(ANY_JSON.map(json.dumps) | st.sampled_from(YAML))
            lines[at] = f"{lines[at].partition(':')[0]}: {value}"
        else:
            lines[at] = draw(st.text(max_size=20))
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return draw(damaged_bytes([text])) if draw(st.integers(0, 7)) == 0 else text
