import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import schemas
from pipeline.fusion_diff import TextConditions, check_vectors


def table(rows, dim=3, tokens=None):
    """A conditions table of [T_i][dim] nested lists."""
    flat = [[number for token in row for number in token] for row in rows]
    lengths = tokens or [len(row) for row in rows]
    columns = [
        pa.array([f"t{i}" for i in range(len(rows))]),
        pa.array(lengths, pa.int32()),
        pa.array(flat, pa.large_list(pa.float16())),
    ]
    return pa.table(columns, schema=schemas.conditions(dim))


def test_batches_are_padded_to_their_longest():
    texts = [torch.full((length, 3), float(i + 1)) for i, length in enumerate((2, 5, 1, 3))]
    conditions = TextConditions.from_list(texts)
    states, mask = conditions.batch(torch.tensor([3, 0, 2]))
    assert states.shape == (3, 3, 3) and states.dtype == torch.float32
    assert mask.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    assert states[:, :, 0].tolist() == [[4, 4, 4], [1, 1, 0], [3, 0, 0]]
    assert conditions.batch(torch.tensor([0]), multiple=4)[0].shape == (1, 4, 3)
    assert conditions.batch(torch.tensor([], dtype=torch.long))[0].shape[0] == 0
    assert len(conditions) == 4 and conditions.longest == 5 and conditions.dim == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.data())
def test_any_batch_gives_back_its_texts(lengths, data):
    texts = [torch.randn(length, 2) for length in lengths]
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=5))
    states, mask = TextConditions.from_list(texts).batch(torch.tensor(chosen))
    for row, index in enumerate(chosen):
        assert torch.equal(states[row][mask[row]], texts[index])
        assert not states[row][~mask[row]].any()


def test_a_table_in_chunks_is_read_whole():
    rows = [[[1, 2, 3]], [[4, 5, 6], [7, 8, 9]], [[0, 1, 0]]]
    whole = table(rows)
    conditions = TextConditions.from_table(pa.concat_tables([whole.slice(0, 2), whole.slice(2)]), dim=3)
    assert conditions.states.dtype == torch.float16
    assert conditions.batch(torch.tensor([1, 2]))[0].tolist() == [[[4, 5, 6], [7, 8, 9]], [[0, 1, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("rows", "tokens", "message"),
    [
        ([[[1, 2, 3]], [[1, 2]]], None, r"row 1 \(t1\) has 2 numbers, expected 1 tokens of dimension 3"),
        ([[[1, 2, 3]], [[1, 2, 3]]], [1, 2], r"row 1 \(t1\) has 3 numbers, expected 2 tokens"),
        ([[[1, 2, 3]], []], None, r"row 1 \(t1\) has no tokens"),
        (
            [[[1, 2, 3]], [[1, 2, 3], [1, float("nan"), 3]], [[1, 1, 1]]],
            None,
            r"row 1 \(t1\) has a number that is not finite",
        ),
        ([[[float("inf"), 2, 3]]], None, r"row 0 \(t0\) has a number that is not finite"),
    ],
)
def test_a_bad_row_is_named(rows, tokens, message):
    with pytest.raises(ValueError, match=message):
        TextConditions.from_table(table(rows, tokens=tokens))


def test_missing_values_are_named():
    whole = table([[[1, 2, 3]], [[4, 5, 6]]])
    states = pa.array([[1, 2, 3], None], pa.large_list(pa.float16()))
    with pytest.raises(ValueError, match=r"row 1 \(t1\) has 0 numbers"):
        TextConditions.from_table(whole.set_column(2, whole.schema.field("states"), states))
    with pytest.raises(ValueError, match=r"row 1 \(t1\) has 3 numbers, expected 0 tokens"):
        TextConditions.from_table(whole.set_column(1, whole.schema.field("tokens"), pa.array([1, None], pa.int32())))


def test_another_dimension_is_refused():
    with pytest.raises(ValueError, match="dimension 3, expected 4"):
        TextConditions.from_table(table([[[1, 2, 3]]]), dim=4)
    with pytest.raises(ValueError, match="offsets go from 0 to 3, the states have 2 tokens"):
        TextConditions(torch.zeros(2, 3), torch.tensor([0, 3]))


def test_vectors_are_checked():
    good = torch.randn(3, 4)
    assert check_vectors(good, 4, "z") is good
    with pytest.raises(ValueError, match=r"z: vectors are \(3, 4\), expected \[N, 5\]"):
        check_vectors(good, 5, "z")
    good[2, 1] = float("nan")
    with pytest.raises(ValueError, match=r"z: row 2 \(c\) has a number that is not finite"):
        check_vectors(good, 4, "z", ["a", "b", "c"])
