"""The searcher's lock, and requests of several threads that are sampled together."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.app.search.requests import Request
from pipeline.gpu.batcher import SamplingBatcher
from pipeline.query.interface import Controls


def test_a_released_lock_is_free_and_then_held_again(searcher):
    lock = searcher._lock
    with lock:
        with searcher._released():
            assert lock.acquire(timeout=1)
            lock.release()
        assert lock.locked()
        with pytest.raises(ZeroDivisionError), searcher._released():
            raise ZeroDivisionError
        assert lock.locked()
    assert not lock.locked()


def test_one_thread_at_a_time_is_in_a_family(searcher, reference, monkeypatch):
    family = searcher._family("slerp")
    answer, inside, most = family.answer, [], []

    def watched(*arguments, **options):
        inside.append(threading.get_ident())
        most.append(len(inside))
        try:
            return answer(*arguments, **options)
        finally:
            inside.remove(threading.get_ident())

    monkeypatch.setattr(family, "answer", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(searcher.search, [Request(reference, f"number {number}", "slerp") for number in range(8)]))
    assert most == [1] * 8 and not searcher._lock.locked()


@pytest.fixture
def shared(searcher) -> dict[str, SamplingBatcher]:
    """The samplers as on a GPU, where they gain from batches."""
    family = searcher._family("fusion_diff")
    alone = dict(family.samplers)
    assert not any(sampler.gains_from_batches for sampler in alone.values())
    for method, sampler in alone.items():
        family.samplers[method] = SamplingBatcher(sampler, wait_ms=0.0, waiting=searcher._released)
    yield family.samplers
    for method, sampler in alone.items():
        family.samplers[method].close()
        family.samplers[method] = sampler


@pytest.mark.parametrize("method", ["stage1_only", "fusion_diff"])
def test_threads_that_are_sampled_together_get_what_each_gets_alone(searcher, reference, method, request):
    """Other scales and negative texts go by themselves."""
    controls = [
        Controls(),
        Controls(),
        Controls(hypotheses=3),
        Controls(negative="a chef"),
        Controls(guidance_scale=searcher.params.retrieve.guidance_scale + 1),
        Controls(),
    ]
    requests = [Request(reference, f"number {number}", method, controls=one) for number, one in enumerate(controls)]
    alone = [searcher.search(one) for one in requests]
    shared = request.getfixturevalue("shared")
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(searcher.search, requests))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.vector, one.vector, atol=1e-5)
        assert [hit.image_id for hit in other.hits] == [hit.image_id for hit in one.hits]
    sizes = {name: sampler.batches for name, sampler in shared.items()}
    assert sum(sizes.pop(method)) == 4 and not any(sizes.values())


def test_the_lock_is_free_while_a_batch_is_sampled(searcher, reference, shared, monkeypatch):
    """Another thread searches while this one waits for its batch."""
    plain = shared["fusion_diff"].sampler
    started, go_on, sample = threading.Event(), threading.Event(), plain.sample

    def slow(*arguments, **options):
        started.set()
        assert go_on.wait(30)
        return sample(*arguments, **options)

    monkeypatch.setattr(plain, "sample", slow)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(searcher.search, Request(reference, "a moon", "fusion_diff"))
        assert started.wait(30)
        assert searcher.search(Request(reference, "a moon", "slerp")).hits and not waiting.done()
        go_on.set()
        assert waiting.result(30).hits
