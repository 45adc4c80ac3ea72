"""Every number has a range, and what lies outside is one line that names the parameter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from pipeline.config import ParameterError, Params
from pipeline.config.ranges import Count, NotNegative, Positive, Range, Share, ShareBelowOne
from pipeline.config.section import check_values
from tests.sections import plain_params


def numbers(kind: type, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], tuple[type, Any]]]:
    """The place of every parameter that is a number, or a list of them, with its section and its type."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner = get_args(hint)[0] if get_origin(hint) in (list, Annotated) else hint
        inner = get_args(inner)[0] if get_origin(inner) is Annotated else inner
        if dataclasses.is_dataclass(hint):
            yield from numbers(hint, (*path, name))
        elif inner in (int, float):
            yield (*path, name), (kind, hint)


def range_of(hint: Any) -> Range | None:
    hint = get_args(hint)[0] if get_origin(hint) is list else hint
    return next((extra for extra in get_args(hint)[1:] if isinstance(extra, Range)), None)


NUMBERS = dict(numbers(Params))


def test_every_number_has_a_range():
    assert len(NUMBERS) > 120
    assert [".".join(path) for path, (_, hint) in NUMBERS.items() if range_of(hint) is None] == []


@pytest.mark.parametrize("path", NUMBERS, ids=".".join)
def test_a_number_out_of_its_range_is_one_line_naming_the_parameter(path):
    kind, hint = NUMBERS[path]
    allowed = range_of(hint)
    is_float = float in get_args(hint) or "float" in str(hint)
    wrong = [-1, *([math.nan, math.inf] if is_float else [])]
    wrong += [allowed.least] if allowed.without_least else []
    wrong += [2] if allowed.most == 1 else []
    wrong += [0] if allowed.least >= 1 else []
    for value in wrong:
        with pytest.raises(ParameterError) as caught:
            check_values(kind, {path[-1]: [value] if get_origin(hint) is list else value}, ".".join(path[:-1]))
        assert str(caught.value).startswith(f"{'.'.join(path)}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "inside", "outside"),
    [
        (Count, [1, 7], [0, -1, "1", None]),
        (Share, [0, 1, 0.5, 1.0], [-1e-9, 1.1, math.nan]),
        (ShareBelowOne, [0, 0.999], [1, 1.0, math.inf]),
        (Positive, [1e-12, 5], [0, -0.0, math.inf, -math.inf]),
        (NotNegative, [0, 1e9], [-1, math.nan]),
    ],
)
def test_what_lies_in_a_range(hint, inside, outside):
    allowed = range_of(hint)
    assert all(value in allowed for value in inside) and not any(value in allowed for value in outside)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": {"lr": -1}}, "prior.lr: -1.0 is not above 0"),
        ({"prior": {"p_cfg": 2}}, "prior.p_cfg: 2.0 is not between 0 and 1"),
        ({"retrieve": {"top_k": 0}}, "retrieve.top_k: 0 is not at least 1"),
        ({"data": {"val_share": 1.0}}, "data.val_share: 1.0 is not above 0 and below 1"),
        ({"seed": 2**40}, "seed: 1099511627776 is not at least 0 and at most 4294967295"),
        ({"sweep": {"solver_steps": [0, 2]}}, "sweep.solver_steps: 0 is not at least 1"),
        ({"sweep": {"solver_steps": []}}, "sweep.solver_steps: there must be at least one value"),
        ({"diffcomp_variants": {"mine": {"eta": 1.5}}}, "diffcomp.eta: 1.5 is not between 0 and 1"),
        ({"data": {"web": {"pairs": []}}}, "data.web.pairs: at least one must be listed"),
        ({"data": {"web": {"pairs": ["folder", "folder"]}}}, "data.web.pairs: ['folder', 'folder'] names a source"),
        ({"data": {"benchmarks": ["cirr", "cirr"]}}, "data.benchmarks: ['cirr', 'cirr'] names a benchmark twice"),
    ],
)
def test_the_message_says_the_range(changes, message):
    with pytest.raises(ParameterError) as caught:
        plain_params(**changes)
    assert message in str(caught.value)


def test_edits_may_be_left_out():
    assert plain_params(data={"web": {"edits": []}}).data.web.edits == []
