"""Filters on metadata: one small language, translated for SQLite and for Milvus.

    year >= 2020 and (author in ["Ann", "Bo"] or not tag like "draft%")

A name is a field. A text stands in quotation marks, a field with a space or another sign in backticks. `like` compares
texts, where `%` stands for any signs and `_` for one. Of a field that an image lacks, no comparison holds, and no
negation of one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

FieldKind = Literal["text", "number", "truth"]
MAX_LENGTH, MAX_DEPTH = 2_000, 40
"""Characters of a filter, and parentheses or negations within each other."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
    |(?P<quoted>`[^`]+`)
    |(?P<word>[^\W\d]\w*)
    |(?P<sign>==|!=|<=|>=|&&|\|\||[<>=!()\[\],]))""",
    re.VERBOSE,
)
_OPERATORS = ("==", "!=", "<=", ">=", "<", ">")
_CONTRARY = {"==": "!=", "<": ">=", ">": "<=", "like": "not like"}
_CONTRARY |= {contrary: operator for operator, contrary in _CONTRARY.items()}
_SAME = {"=": "==", "&&": "and", "||": "or", "!": "not"}
_KINDS: dict[type, FieldKind] = {str: "text", int: "number", float: "number", bool: "truth"}
_SPOKEN = {"text": "a text", "number": "a number", "truth": "true or false"}


class FilterError(ValueError):
    """What is wrong with a filter, in one sentence."""


@dataclass(frozen=True)
class Comparison:
    """One field against a value. Every operator has its negation."""

    field: str
    operator: str
    value: Any


@dataclass(frozen=True)
class Junction:
    """Parts of which all (`and`) or any (`or`) must hold."""

    operator: Literal["and", "or"]
    parts: tuple[Filter, ...]


Filter: TypeAlias = Comparison | Junction


LONGEST_NAME = 100
"""Characters of a field's name."""
_LARGEST = 2**63
"""What databases keep of whole numbers."""


def is_field_name(name: str) -> bool:
    """Whether a field of the user's own can be called so."""
    is_plain = name.isprintable() and not set('`"\\') & set(name)
    return is_plain and 0 < len(name) <= LONGEST_NAME and name != "path"


def kind_of(value: object) -> FieldKind | None:
    """The kind of a field with this value; None for what no field may hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) >= _LARGEST:
        return None
    return _KINDS.get(type(value))


def parse_filter(text: str, fields: Mapping[str, FieldKind]) -> Filter:
    """Read a filter.

    Args:
        text: The filter.
        fields: The fields that may be named, and their kinds.

    Returns:
        The filter as a tree.

    Raises:
        FilterError: It cannot be read, names an unknown field, or compares a field with a value of another kind.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError(f"filter: {len(text):,} characters, at most {MAX_LENGTH:,} are taken")
    return _Parser(text, fields).run()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    """Recursive descent: or, and, not, a comparison."""

    def __init__(self, text: str, fields: Mapping[str, FieldKind]):
        self._fields, self._tokens, self._depth = fields, _tokens_of(text), 0

    def run(self) -> Filter:
        result = self._junction("or")
        self._expect("end")
        return result

    def _junction(self, operator: Literal["and", "or"]) -> Filter:
        parts = [self._part(operator)]
        while self._takes(operator):
            parts.append(self._part(operator))
        return parts[0] if len(parts) == 1 else Junction(operator, tuple(parts))

    def _part(self, operator: str) -> Filter:
        return self._junction("and") if operator == "or" else self._negation()

    def _negation(self) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterError(f"filter: nested deeper than {MAX_DEPTH}")
        if self._takes("not"):
            result = negated(self._negation())
        elif self._takes("("):
            result = self._junction("or")
            self._expect(")")
        else:
            result = self._comparison()
        self._depth -= 1
        return result

    def _comparison(self) -> Filter:
        field = self._field()
        if self._takes("not"):
            self._expect("in")
            return negated(self._one_of(field))
        if self._takes("in"):
            return self._one_of(field)
        if self._takes("like"):
            if self._fields[field] != "text":
                raise FilterError(f"filter: {field} is {_SPOKEN[self._fields[field]]}; `like` compares texts")
            value = self._value(field)
            if "\\" in str(value):
                raise FilterError("filter: `like` takes no backslash, of which databases make different things")
            return Comparison(field, "like", value)
        operator = next((operator for operator in _OPERATORS if self._takes(operator)), None)
        if operator is None:
            raise self._unexpected("a comparison such as == or in")
        return Comparison(field, operator, self._value(field))

    def _field(self) -> str:
        token = self._tokens[0]
        if token.kind not in ("word", "quoted"):
            raise self._unexpected("a field")
        self._tokens.pop(0)
        name = token.text.strip("`")
        if name not in self._fields:
            known = ", ".join(sorted(self._fields)) or "none"
            raise FilterError(f"filter: there is no field {name!r}; there are: {known}")
        return name

    def _one_of(self, field: str) -> Filter:
        self._expect("[")
        values = [self._value(field)]
        while self._takes(","):
            values.append(self._value(field))
        self._expect("]")
        return Junction("or", tuple(Comparison(field, "==", value) for value in values))

    def _value(self, field: str) -> Any:
        token = self._tokens[0]
        value: Any = None
        if token.kind == "text":
            value = re.sub(r"\\(.)", r"\1", token.text[1:-1])
        elif token.kind == "number":
            value = float(token.text) if re.search("[.eE]", token.text) else int(token.text)
        elif token.text in ("true", "false"):
            value = token.text == "true"
        if value is None:
            raise self._unexpected("a value: a text in quotation marks, a number, true or false")
        self._tokens.pop(0)
        if isinstance(value, int) and abs(value) >= _LARGEST:
            raise FilterError(f"filter: {token.text} is too large")
        if kind_of(value) != self._fields[field]:
            raise FilterError(f"filter: {field} is {_SPOKEN[self._fields[field]]}, {token.text} is not")
        return value

    def _takes(self, text: str) -> bool:
        token = self._tokens[0]
        if token.kind in ("sign", "word") and token.text == text:
            self._tokens.pop(0)
            return True
        return False

    def _expect(self, text: str) -> None:
        if self._tokens[0].kind == text == "end":
            return
        if not self._takes(text):
            raise self._unexpected({"end": "`and` or `or`"}.get(text, repr(text)))

    def _unexpected(self, wanted: str) -> FilterError:
        token = self._tokens[0]
        found = "it ends" if token.kind == "end" else f"there is {token.text!r}"
        return FilterError(f"filter: {found} at character {token.at + 1}, where {wanted} is expected")


def _tokens_of(text: str) -> list[_Token]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise FilterError(f"filter: {text[at]!r} at character {at + 1} cannot be read")
        word = match[match.lastgroup]
        if match.lastgroup in ("word", "sign"):
            word = _SAME.get(word, word.lower() if word.lower() in ("and", "or", "not", "in", "like") else word)
        tokens.append(_Token(match.lastgroup, word, match.start(match.lastgroup)))
        at = match.end()
    return [*tokens, _Token("end", "", end)]


def negated(tree: Filter) -> Filter:
    """The contrary of a filter; databases differ in what they make of `not` and a field that is missing."""
    if isinstance(tree, Junction):
        return Junction("and" if tree.operator == "or" else "or", tuple(map(negated, tree.parts)))
    return Comparison(tree.field, _CONTRARY[tree.operator], tree.value)


def as_sql(tree: Filter, columns: Mapping[str, str]) -> tuple[str, list[Any]]:
    """A filter as a condition of SQLite.

    Args:
        tree: The filter.
        columns: Field -> the expression that gives its value.

    Returns:
        The condition, and the values of its question marks.
    """
    if isinstance(tree, Junction):
        parts = [as_sql(part, columns) for part in tree.parts]
        joined = f" {tree.operator.upper()} ".join(condition for condition, _ in parts)
        return f"({joined})", [value for _, values in parts for value in values]
    column, operator = columns[tree.field], tree.operator
    if not operator.endswith("like"):
        return f"{column} {operator} ?", [tree.value]
    # GLOB tells capitals from small letters, as Milvus does; LIKE does not.
    escaped = re.sub(r"([*?\[])", r"[\1]", tree.value).replace("%", "*").replace("_", "?")
    return f"{column} {operator.replace('like', 'GLOB')} ?", [escaped]


def as_milvus(tree: Filter, column: str) -> str:
    """A filter as an expression of Milvus.

    Args:
        tree: The filter.
        column: The field of type JSON that holds the metadata.
    """
    if isinstance(tree, Junction):
        return f"({f' {tree.operator} '.join(as_milvus(part, column) for part in tree.parts)})"
    field = f"{column}[{json.dumps(tree.field, ensure_ascii=False)}]"
    compared = f"{field} {tree.operator} {json.dumps(tree.value, ensure_ascii=False)}"
    if tree.operator == "not like":
        compared = f"not ({compared.replace(' not like ', ' like ', 1)})"
    return f"(exists {field} and {compared})" if tree.operator in ("!=", "not like") else f"({compared})"
