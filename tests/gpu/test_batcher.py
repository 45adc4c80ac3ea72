"""Queries of many threads sampled together: each gets what it would get alone."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pipeline.config import Speed
from pipeline.gpu import accelerate
from pipeline.gpu.batcher import SamplingBatcher


@pytest.fixture
def sampler(make_sampler):
    return accelerate(make_sampler(4), Speed(cuda_graph=True))


@pytest.fixture
def asked(sizes):
    """Twelve queries: id, states [T, text_dim] of 1 to 5 tokens, control [d]."""
    return [(f"q{row}", torch.randn(1 + row % 5, sizes.text_dim), torch.randn(sizes.dim)) for row in range(12)]


def alone(sampler, query_id, states, control, **options):
    """[K, d]"""
    return sampler.sample([query_id], (states[None], None), control[None], **options)[0]


def test_each_of_many_threads_gets_its_own_answer(sampler, asked):
    with SamplingBatcher(sampler, batch_size=8, wait_ms=50) as batcher, ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda query: alone(batcher, *query), asked))
    for query, targets in zip(asked, found, strict=True):
        torch.testing.assert_close(targets, alone(sampler, *query), rtol=1e-4, atol=1e-5)
    assert sum(batcher.batches) == 12 and max(batcher.batches) <= 8


def test_what_waits_goes_together_up_to_the_batch_size(sampler, asked):
    """The first query is held in the sampler until all others are waiting."""
    entered, go = threading.Event(), threading.Event()
    sample = sampler.sample

    def held(*arguments, **options):
        entered.set()
        assert go.wait(60)
        return sample(*arguments, **options)

    sampler.sample = held
    with SamplingBatcher(sampler, batch_size=5, wait_ms=0) as batcher:
        first = batcher.submit(*asked[0])
        assert entered.wait(60)
        others = [batcher.submit(*query) for query in asked[1:]]
        go.set()
        assert first.result(60).shape == (1, 24) and all(other.result(60).shape == (1, 24) for other in others)
    assert batcher.batches == [1, 5, 5, 1]


def test_hypotheses_and_seed_are_the_callers(sampler, asked):
    with SamplingBatcher(sampler, wait_ms=50) as batcher:
        one, many = batcher.submit(*asked[0], seed=3), batcher.submit(*asked[1], hypotheses=3, seed=3)
        torch.testing.assert_close(one.result(), alone(sampler, *asked[0], seed=3), rtol=1e-4, atol=1e-5)
        other = batcher.submit(*asked[0], seed=4)
        torch.testing.assert_close(many.result(), alone(sampler, *asked[1], seed=3, hypotheses=3), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.result(), alone(sampler, *asked[0], seed=4), rtol=1e-4, atol=1e-5)


def test_bad_queries_are_rejected_alone(sampler, asked, sizes):
    query_id, states, control = asked[4]
    with SamplingBatcher(sampler) as batcher:
        good = batcher.submit(*asked[0])
        for bad, message in (
            ((query_id, states[:, 1:], control), r"query q4 has text states \(5, 11\)"),
            ((query_id, states[:0], control), r"query q4 has text states \(0, 12\)"),
            ((query_id, torch.randn(7, sizes.text_dim), control), r"expected 1 to 6 tokens of 12"),
            ((query_id, states * float("nan"), control), "query q4 has a text state that is not finite"),
            ((query_id, states, None), "needs a control vector"),
            ((query_id, states, control[1:]), r"\(1, 23\), expected \[N, 24\]"),
            ((query_id, states, control / 0), r"row 0 \(q4\) has a number that is not finite"),
            ((query_id, states, control, 0), "0 hypotheses"),
        ):
            with pytest.raises(ValueError, match=message):
                batcher.submit(*bad)
        assert torch.isfinite(good.result()).all()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(*asked[0])
    with pytest.raises(ValueError, match="batch_size 0"):
        SamplingBatcher(sampler, batch_size=0)


def test_an_error_while_sampling_reaches_every_caller_and_the_next_batch_works(sampler, asked):
    sample, calls = sampler.sample, []

    def failing(*arguments, **options):
        calls.append(None)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return sample(*arguments, **options)

    sampler.sample = failing
    with SamplingBatcher(sampler, wait_ms=0) as batcher:
        with pytest.raises(RuntimeError, match="out of memory"):
            alone(batcher, *asked[0])
        assert alone(batcher, *asked[1]).shape == (1, 24)


def test_a_batcher_stands_in_for_its_sampler(sampler, asked):
    """The same targets for several queries with padding, with negative texts, and at other scales."""
    ids, texts, controls = zip(*asked[:5], strict=True)
    states, control = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True), torch.stack(controls)
    mask = torch.arange(states.shape[1]) < torch.tensor([len(text) for text in texts])[:, None]
    negative = torch.randn(5, 2, states.shape[2]), None
    with SamplingBatcher(sampler, wait_ms=50) as batcher:
        for options in ({"hypotheses": 2, "seed": 1}, {"negative": negative}):
            found, expected = (one.sample(ids, (states, mask), control, **options).cpu() for one in (batcher, sampler))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert batcher.settings is sampler.settings and batcher.scaled() is batcher
        other = batcher.scaled(guidance_scale=1.0)
        assert other.settings.guidance_scale == 1.0 and other is not batcher


def test_a_caller_gives_its_lock_back_while_it_waits(sampler, asked):
    """Two callers who hold one lock around all they do are sampled together."""
    lock = threading.Lock()

    @contextlib.contextmanager
    def released():
        lock.release()
        try:
            yield
        finally:
            lock.acquire()

    def ask(query):
        with lock:
            return alone(batcher, *query)

    with (
        SamplingBatcher(sampler, batch_size=2, wait_ms=10_000, waiting=released) as batcher,
        ThreadPoolExecutor(2) as threads,
    ):
        found = list(threads.map(ask, asked[:2]))
    assert batcher.batches == [2] and not lock.locked()
    for query, targets in zip(asked, found, strict=False):
        torch.testing.assert_close(targets, alone(sampler, *query), rtol=1e-4, atol=1e-5)
