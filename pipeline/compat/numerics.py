"""The same bytes on every x86-64 with AVX2: numeric libraries use instructions that all of these machines have.

Left alone, each library takes the widest instructions of the machine that it finds itself on, and sums in another order
with them. `pin` keeps them from it, before the first of them is loaded; `use_portable_products` gives torch what MKL
cannot give.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

PINS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own loops
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # its convolutions, GELUs, and the products below
    "MKL_CBWR": "COMPATIBLE",  # the only branch of MKL that processors of other makers take as well
    "OPENBLAS_CORETYPE": "Haswell",  # the products of NumPy, SciPy and FAISS
    "OPENBLAS_NUM_THREADS": "1",  # it shares them out by the machine's cores, whatever it is told
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # NumPy's own loops
    "FAISS_OPT_LEVEL": "avx2",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait in a loop take the cores of those that work
    "GOMP_SPINCOUNT": "4000",  # but a short wait costs less than to be woken: a third of a training step on idle cores
}

_pinned: list[str] = []
_libraries: list[Any] = []  # a torch Library that is garbage-collected takes its kernels with it


def pin() -> None:
    """Set what is not set, for this process and those that it starts. Libraries that are loaded already keep theirs."""
    for name, value in PINS.items():
        if name not in os.environ:
            os.environ[name] = value
            _pinned.append(name)


def unpin() -> None:
    """Take back what `pin` has set. Torch reads its settings at its first operation; NumPy has read its own by then."""
    while _pinned:
        os.environ.pop(_pinned.pop(), None)


def use_portable_products() -> None:
    """Give torch's CPU matrix products to oneDNN, and square roots to NumPy.

    MKL's portable branch is three times slower than its others. oneDNN sums in one order on all machines with AVX2, as
    quickly as MKL. MKL's square root differs by the maker of the processor; the processor's own is exact. Can be called
    again without effect.
    """
    if _libraries:
        return
    import torch

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that a kernel is replaced
        library.impl("mm", _mm, "CPU")
        library.impl("addmm", _addmm, "CPU")
        library.impl("sqrt", _sqrt, "CPU")
        library.impl("pow.Tensor_Scalar", _pow, "CPU")
    _libraries.append(library)


def products_are_portable() -> bool:
    """Whether `use_portable_products` was called, so that other processes can do as this one does."""
    return bool(_libraries)


def _mm(first: Any, second: Any) -> Any:
    """[M, K] x [K, N]."""
    if _for_onednn(first, second):
        return _product(first, second, None)
    import torch

    return torch.ops.aten.mm.out(first, second, out=first.new_empty(first.shape[0], second.shape[1]))


def _addmm(bias: Any, first: Any, second: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """beta * bias + alpha * [M, K] x [K, N]."""
    if alpha == beta == 1 and bias.ndim == 1 and _for_onednn(first, second):
        return _product(first, second, bias.contiguous())
    import torch

    out = first.new_empty(first.shape[0], second.shape[1])
    return torch.ops.aten.addmm.out(bias, first, second, beta=beta, alpha=alpha, out=out)


LONGEST = 256
"""Terms of one oneDNN product. How it blocks and shares out longer sums depends on the machine's caches."""


def _for_onednn(first: Any, second: Any) -> bool:
    """Whether oneDNN sums in order: products of float32 matrices, not of vectors."""
    import torch

    matrices = first.shape[0] > 1 and second.shape[1] > 1 and first.shape[1] > 0
    return first.dtype == second.dtype == torch.float32 and matrices


def _product(first: Any, second: Any, bias: Any) -> Any:
    """One fused multiply-add after the other along K, whatever the machine; a part of K after the other."""
    import torch

    linear, length = torch.ops.mkldnn._linear_pointwise, first.shape[1]
    total: Any = None
    for begin in range(0, length, LONGEST):
        # In one layout, [M, K] and [N, K]: oneDNN has other products for others.
        ours = first[:, begin : begin + LONGEST].contiguous()
        theirs = second[begin : begin + LONGEST].t().contiguous()
        part = linear(ours, theirs, bias if length <= LONGEST else None, "none", [], "")
        total = part if total is None else total.add_(part)
    return total if bias is None or length <= LONGEST else total.add_(bias)


def _pow(values: Any, exponent: Any) -> Any:
    """MKL takes the square root where the exponent is a half."""
    import torch

    if exponent == 0.5:
        return _sqrt(values)
    out = torch.empty_like(values, dtype=torch.result_type(values, exponent))
    return torch.ops.aten.pow.Tensor_Scalar_out(values, exponent, out=out)


def _sqrt(values: Any) -> Any:
    import torch

    if values.dtype in (torch.float32, torch.float64):
        import numpy as np

        return torch.from_numpy(np.asarray(np.sqrt(values.detach().numpy())))
    if not values.is_floating_point() and not values.is_complex():
        return _sqrt(values.to(torch.get_default_dtype()))
    return torch.ops.aten.sqrt.out(values, out=torch.empty_like(values))
