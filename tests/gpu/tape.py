"""A stand-in for CUDA graphs on a CPU: what a function does to its tensors is noted, and done to them again."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
"""What needs a value of the GPU, so that no graph takes it."""


class Tape(TorchDispatchMode):
    """As a graph, it knows tensors alone: what Python decided while it was recorded, stays."""

    def __init__(self):
        super().__init__()
        self.calls, self.replays = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in WAITS:
            raise RuntimeError(f"{func} is not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self):
        self.replays += 1
        for func, args, kwargs, out in self.calls:
            for own, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if (
                    isinstance(own, torch.Tensor)
                    and own.untyped_storage().data_ptr() != new.untyped_storage().data_ptr()
                ):
                    own.copy_(new)


@pytest.fixture
def tapes(monkeypatch):
    """`torch.cuda` records tapes; the list of those that there are."""
    made, stream = [], SimpleNamespace(wait_stream=lambda other: None)

    def tape():
        made.append(Tape())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", tape)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool, capture_error_mode: graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return made
