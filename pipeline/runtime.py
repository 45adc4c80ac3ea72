"""What every stage sets before it works: threads, determinism, seeds, and no calls to a hub."""

from __future__ import annotations

import ctypes
import os
import random

import numpy as np
import torch

from pipeline.compat.numerics import unpin, use_portable_products
from pipeline.config import RuntimeParams

LOCAL_RANK = "LOCAL_RANK"
"""In the environment of each of several processes that train together: its number on this host."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""The numbers of glibc's `mallopt`."""
KEPT_BYTES, LARGEST_KEPT = 2**30, 2**25
"""Freed memory that a process keeps at most, and the largest block of it: glibc takes no more than 32 MiB for that."""


def set_up(runtime: RuntimeParams, seed: int) -> None:
    """Make a run repeatable: the same inputs, parameters and seed give the same bytes.

    With `runtime.portable` they do on the CPU of any x86-64 with AVX2, without it on machines of one type. A GPU gives
    the same bytes on GPUs of one type.

    Call it first in a stage's `main`. Weights are files by then, so hubs are off unless the environment already says
    otherwise (`HF_HUB_OFFLINE=0`).

    Args:
        runtime: Threads, the device, and whether a GPU is deterministic.
        seed: Of Python, NumPy and torch.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    if runtime.portable:
        use_portable_products()
    else:
        unpin()
    torch.set_num_threads(runtime.threads)
    keep_freed_memory()
    if (
        device(runtime) == "cuda" and LOCAL_RANK in os.environ
    ):  # one of several processes: "cuda" is to mean its own GPU
        torch.cuda.set_device(int(os.environ[LOCAL_RANK]))
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    make_deterministic(device(runtime), runtime.deterministic)
    _quiet_transformers()
    _set_faiss_threads(runtime.threads)


def make_deterministic(where: str, deterministic: bool) -> None:
    """Use torch's deterministic algorithms.

    A GPU lacks deterministic forms of some operators: there a warning names them, on a CPU it is an error. Both are
    spared filling memory that is about to be written: no result depends on that, and it takes up to a fifth of a step.

    Args:
        where: The torch device.
        deterministic: Whether a GPU uses them. A CPU always does, where they cost nothing.
    """
    mode = ("warn" if deterministic else "default") if where != "cpu" else "error"
    # The same switch as use_deterministic_algorithms, which would load torch's compiler too: seconds of every start.
    torch.set_deterministic_debug_mode(mode)
    # torch gives this module a class of its own, of which its types know nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def keep_freed_memory() -> bool:
    """Let glibc keep what torch frees for its next tensors.

    Left alone it gives the memory of every step back to the system, and each page that is taken again costs a fault.

    Returns:
        Whether this C library can be told so; others stay as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def device(runtime: RuntimeParams) -> str:
    """The torch device that `runtime.device` means on this machine.

    Args:
        runtime: `device` is a torch device or auto, a GPU where there is one.

    Returns:
        Such as cuda or cpu.
    """
    if runtime.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return runtime.device


def processes_here() -> int:
    """How many processes of this host train together; see `pipeline.training.launch`."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process is the one that writes files, of those that train together."""
    return os.environ.get("RANK", "0") == "0"


def _quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _set_faiss_threads(threads: int) -> None:
    try:
        import faiss
    except ImportError:  # only the retrieval stages need it
        return
    faiss.omp_set_num_threads(threads)
