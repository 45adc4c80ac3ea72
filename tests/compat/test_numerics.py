"""Portable numerics: right products and roots, and settings that arrive before the libraries that read them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.compat.numerics import PINS, use_portable_products

PROGRAM = """
import pipeline, numpy, sys, hashlib
from pipeline.compat.numerics import unpin, use_portable_products
unpin() if sys.argv[1] == "fast" else use_portable_products()
import torch
torch.set_num_threads(2)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(192, 256), torch.nn.GELU(), torch.nn.Linear(256, 64))
optimiser = torch.optim.AdamW(model.parameters())
for _ in range(3):
    values = torch.randn(48, 8, 192)
    states = model(values)
    states = torch.nn.functional.scaled_dot_product_attention(states, states, states, is_causal=True)
    optimiser.zero_grad()
    (states.softmax(-1).log() - states.exp()).std().backward()
    optimiser.step()
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
product = numpy.random.default_rng(0).standard_normal((300, 256), numpy.float32)
digest += hashlib.sha256((product @ product.T).tobytes() + numpy.exp(product).tobytes()).hexdigest()
print(torch.backends.cpu.get_cpu_capability(), digest)
"""


NO_AVX512 = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD"


def without_pins() -> dict[str, str]:
    """This process' environment without its settings of numeric libraries."""
    kept = {name: value for name, value in os.environ.items() if name not in PINS}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[2])}


def run(how: str, **environment: str) -> list[str]:
    """The program's torch capability and digest, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        env=without_pins() | environment,
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def portable():
    return run("portable")


def test_torch_is_held_to_avx2_and_let_go_without_it(portable):
    if torch.cpu._is_avx2_supported():
        assert portable[0] == "AVX2"
    native = "AVX512" if torch.cpu._is_avx512_supported() else portable[0]
    assert run("fast")[0] == native
    assert run("portable", ATEN_CPU_CAPABILITY="default")[0] == "DEFAULT"  # what a person has set stays


@pytest.mark.parametrize(
    "lesser",
    [
        {"GLIBC_TUNABLES": NO_AVX512},
        {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        {"MKL_NUM_THREADS": "8", "OMP_NUM_THREADS": "8"},
    ],
    ids=["glibc", "mkl", "eight cores"],
)
def test_a_machine_with_less_or_more_gives_the_same_bytes(portable, lesser):
    assert run("portable", **lesser) == portable


@pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="the machine has no AVX2")
@pytest.mark.parametrize("lesser", [{}, {"GLIBC_TUNABLES": NO_AVX512}], ids=["as it is", "without AVX-512"])
def test_operators_give_the_committed_bytes(lesser):
    """The same operators gave the same on an AMD EPYC (torch 2.13) and on an Intel Xeon with AMX (torch 2.11)."""
    committed = json.loads(Path(__file__).with_name("operators.json").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "tests.compat.operators"], env=without_pins() | lesser, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    assert dict(line.split(": ", 1) for line in done.stdout.splitlines()) == committed


@pytest.mark.skipif(not torch.cpu._is_avx512_supported(), reason="the machine has nothing wider than AVX2")
def test_the_digest_notices_wider_instructions(portable):
    assert run("fast")[1] != portable[1]


@pytest.fixture
def products():
    use_portable_products()


def transposed(*shape: int) -> torch.Tensor:
    return torch.randn(*shape[::-1]).t()


def cut_out(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows + 3, columns + 5)[3:, 5:]


@pytest.mark.parametrize("first", [torch.randn, transposed, cut_out])
@pytest.mark.parametrize("second", [torch.randn, transposed, cut_out])
@pytest.mark.parametrize(
    "sizes", [(7, 5, 3), (1, 1, 1), (64, 256, 96), (9, 3000, 5), (1, 40, 1), (1, 9, 7), (7, 9, 1), (0, 3, 2), (2, 0, 3)]
)
def test_products_are_those_of_float64(products, first, second, sizes):
    m, k, n = sizes
    a, b, bias = first(m, k), second(k, n), torch.randn(n)
    exact = a.double().numpy() @ b.double().numpy()
    np.testing.assert_allclose((a @ b).numpy(), exact, atol=1e-3)
    np.testing.assert_allclose(torch.addmm(bias, a, b).numpy(), exact + bias.numpy(), atol=1e-3)
    np.testing.assert_allclose(
        torch.addmm(bias, a, b, beta=0.5, alpha=2.0).numpy(), 0.5 * bias.numpy() + 2.0 * exact, atol=1e-3
    )
    np.testing.assert_allclose(torch.addmm(torch.ones(m, n), a, b).numpy(), exact + 1.0, atol=1e-3)


@pytest.mark.parametrize("first", [torch.randn, transposed, cut_out])
@pytest.mark.parametrize("second", [torch.randn, transposed, cut_out])
@pytest.mark.parametrize("sizes", [(2, 300, 7), (64, 256, 96), (256, 1024, 16), (33, 2500, 40)])
def test_products_add_one_term_after_the_other(products, first, second, sizes):
    """What makes them the same everywhere: fused multiply-adds along K, in parts of 256 that are added up in order."""
    m, k, n = sizes
    a, b = first(m, k), second(k, n)
    total = np.zeros((m, n), np.float32)
    for begin in range(0, k, 256):
        part = np.zeros((m, n))
        for i in range(begin, min(begin + 256, k)):
            product = np.outer(a[:, i].double(), b[i].double())
            part = (product + part).astype(np.float32).astype(np.float64)
        total += part.astype(np.float32)
    assert np.mean((a @ b).numpy() == total) > 0.999  # adding in float64 rounds twice, once in many thousand times


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float16, torch.bfloat16])
def test_other_types_keep_torchs_own_products(products, dtype):
    a = torch.arange(6, dtype=dtype).view(2, 3)
    assert (a @ a.t()).tolist() == [[5, 14], [14, 50]] and (a @ a.t()).dtype == dtype


def test_gradients_are_those_of_float64(products):
    layer, values = torch.nn.Linear(48, 32), torch.randn(5, 6, 48, requires_grad=True)
    layer(values).square().sum().backward()
    w, b, x = (part.detach().double().numpy() for part in (layer.weight, layer.bias, values))
    y = x @ w.T + b
    np.testing.assert_allclose(values.grad.numpy(), 2 * y @ w, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(layer.weight.grad.numpy(), 2 * np.einsum("ijo,ijk->ok", y, x), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(layer.bias.grad.numpy(), 2 * y.sum((0, 1)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_square_roots_are_the_nearest_numbers(products, dtype):
    values = torch.rand(4096, dtype=dtype).view(64, 64).t()
    assert np.array_equal(values.sqrt().numpy(), np.sqrt(values.numpy()))
    assert np.array_equal((values**0.5).numpy(), np.sqrt(values.numpy()))
    np.testing.assert_allclose((values**1.5).numpy(), values.numpy() ** 1.5, rtol=1e-5)
    assert (torch.arange(3) ** 2).tolist() == [0, 1, 4] and (torch.arange(3) ** 2.0).dtype == torch.float32
    assert torch.tensor(4, dtype=torch.int32).sqrt().item() == 2.0 and torch.tensor(4.0).sqrt().shape == ()
