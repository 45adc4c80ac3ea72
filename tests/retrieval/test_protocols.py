"""The protocols against loops written from the benchmarks' definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.retrieval import protocols

GALLERY = [f"i{n}" for n in range(12)]
ranked_lists = st.permutations(GALLERY).flatmap(
    lambda order: st.integers(1, len(order)).map(lambda length: order[:length])
)
target_lists = st.lists(st.sampled_from(GALLERY), min_size=1, max_size=5, unique=True)
query = st.tuples(ranked_lists, target_lists, st.sampled_from(["gender", "role", "tone"]), st.sampled_from(GALLERY))
queries = st.lists(query, min_size=1, max_size=12)


def naive_recall(ranked, targets, k, any_target):
    hit = 0
    for names, wanted in zip(ranked, targets, strict=True):
        first = names[:k]
        found = False
        for target in wanted if any_target else [wanted[0]]:
            if target in first:
                found = True
        hit += found
    return 100.0 * hit / len(ranked)


def naive_map(ranked, targets, k):
    total = 0.0
    for names, wanted in zip(ranked, targets, strict=True):
        precision_sum = 0.0
        for position in range(min(k, len(names))):
            if names[position] in wanted:
                relevant = len([name for name in names[: position + 1] if name in wanted])
                precision_sum += relevant / (position + 1)
        total += precision_sum / min(k, len(wanted))
    return 100.0 * total / len(ranked)


@given(queries, st.integers(1, 15), st.booleans())
def test_recall(rows, k, any_target):
    ranked, targets = [row[0] for row in rows], [row[1] for row in rows]
    expected = naive_recall(ranked, targets, k, any_target)
    assert protocols.recall(ranked, targets, (k,), any_target)[f"R@{k}"] == pytest.approx(expected, abs=1e-9)


@given(queries)
def test_recall_by_category_is_the_plain_mean_over_categories(rows):
    ranked, targets, kinds = [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
    result = protocols.recall_by_category(ranked, targets, kinds)
    assert list(result) == [*sorted(set(kinds)), "mean"]
    for k in protocols.RECALL_KS:
        by_kind = {}
        for kind in set(kinds):
            mine = [n for n, other in enumerate(kinds) if other == kind]
            by_kind[kind] = naive_recall([ranked[n] for n in mine], [targets[n] for n in mine], k, True)
            assert result[kind][f"R@{k}"] == pytest.approx(by_kind[kind], abs=1e-9)
        assert result["mean"][f"R@{k}"] == pytest.approx(sum(by_kind.values()) / len(by_kind), abs=1e-9)


@given(queries)
def test_cirr_removes_the_reference(rows):
    ranked, targets, references = [r[0] for r in rows], [r[1] for r in rows], [r[3] for r in rows]
    subsets = [names[::2] for names in ranked]
    result = protocols.cirr(ranked, targets, references, subsets)
    without = [
        [name for name in names if name != reference] for names, reference in zip(ranked, references, strict=True)
    ]
    within = [
        [name for name in names if name != reference] for names, reference in zip(subsets, references, strict=True)
    ]
    for k in (1, 5, 10, 50):
        assert result[f"R@{k}"] == pytest.approx(naive_recall(without, targets, k, False), abs=1e-9)
    for k in (1, 2, 3):
        assert result[f"R_subset@{k}"] == pytest.approx(naive_recall(within, targets, k, False), abs=1e-9)
    assert "R_subset@1" not in protocols.cirr(ranked, targets, references)


@given(queries)
def test_circo(rows):
    ranked, targets = [r[0] for r in rows], [r[1] for r in rows]
    result = protocols.circo(ranked, targets)
    assert list(result) == ["mAP@5", "mAP@10", "mAP@25", "mAP@50"]
    for k in protocols.MAP_KS:
        assert result[f"mAP@{k}"] == pytest.approx(naive_map(ranked, targets, k), abs=1e-9)


def test_average_precision_by_hand():
    assert protocols.average_precision(["a", "x", "b", "y"], ["a", "b", "c"], 5) == pytest.approx((1 + 2 / 3) / 3)
    assert protocols.average_precision(["a", "b", "x"], ["a", "b", "c"], 2) == 1.0
    assert protocols.average_precision([], ["a"], 5) == 0.0


@given(queries)
def test_genecis(rows):
    ranked, targets, tasks = [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
    result = protocols.genecis(ranked, targets, tasks)
    for task in set(tasks):
        mine = [n for n, other in enumerate(tasks) if other == task]
        for k in (1, 2, 3):
            expected = naive_recall([ranked[n] for n in mine], [targets[n] for n in mine], k, False)
            assert result[task][f"R@{k}"] == pytest.approx(expected, abs=1e-9)


@given(queries, st.integers(1, 11))
def test_recall_grows_with_k_and_any_target_is_the_easier(rows, k):
    ranked, targets = [r[0] for r in rows], [r[1] for r in rows]
    first, more = protocols.recall(ranked, targets, (k, k + 1)).values()
    assert 0 <= first <= more <= 100
    assert protocols.recall(ranked, targets, (k,), any_target=False)[f"R@{k}"] <= first


def test_input_that_cannot_be_scored_is_refused():
    for call, message in (
        (lambda: protocols.recall([["a"]], []), "1 ranked lists for 0 queries"),
        (lambda: protocols.recall([], []), "no queries"),
        (lambda: protocols.circo([["a"], ["a"]], [["a"], []]), "query 1 has no target"),
        (lambda: protocols.recall_by_category([["a"]], [["a"]], []), "0 categories"),
        (lambda: protocols.recall_by_category([["a"]], [["a"]], ["mean"]), "'mean'"),
        (lambda: protocols.cirr([["a"]], [["a"]], []), "0 references"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
