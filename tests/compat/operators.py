"""Digests of torch's CPU operators, one line each: run by itself in a process whose settings the test chooses."""

import hashlib

import pipeline  # noqa: F401  (it pins the numeric libraries before they are loaded)

# isort: split
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.compat.numerics import use_portable_products


def digest(*parts: Tensor) -> str:
    """The first eight digits of the SHA-256 of tensors."""
    content = b"".join(np.ascontiguousarray(part.detach().float().numpy()).tobytes() for part in parts)
    return hashlib.sha256(content).hexdigest()[:8]


def gradients(function, *parts: Tensor) -> str:
    """The digest of the gradients of a sum of squares."""
    leaves = [part.clone().requires_grad_() for part in parts]
    function(*leaves).square().sum().backward()
    return digest(*(leaf.grad for leaf in leaves))


def digests() -> dict[str, str]:
    """Operator -> the digest of its result on fixed random numbers."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, weight, bias, q = draw(64, 23, 256), draw(768, 256) * 0.06, draw(768), draw(8, 4, 23, 64)
    scale, shift = draw(256), draw(256)
    mask = torch.rand(8, 1, 1, 23, generator=generator) > 0.3
    attention = F.scaled_dot_product_attention
    parameter = torch.nn.Parameter(draw(256, 256))
    parameter.grad = draw(256, 256)
    torch.optim.AdamW([parameter], lr=0.01).step()
    images, kernels = draw(4, 3, 64, 64), draw(32, 3, 8, 8)
    return {
        "random numbers": digest(x),
        "linear": digest(F.linear(x, weight, bias)),
        "silu, gelu": digest(F.silu(x), F.gelu(x), F.gelu(x, approximate="tanh"), torch.sigmoid(1.702 * x)),
        "layer norm, rms norm": digest(F.layer_norm(x, (256,), scale, shift), F.rms_norm(x, (256,), scale, 1e-6)),
        "attention": digest(attention(q, q, q), attention(q, q, q, is_causal=True), attention(q, q, q, attn_mask=mask)),
        "softmax": digest(x.softmax(-1), x.log_softmax(-1)),
        "reductions": digest(x.mean(1), x.mean(-1), x.sum(0), x.sum(), F.normalize(x, dim=-1), x.norm(dim=-1)),
        "functions": digest(x.cos(), x.sin(), x.exp(), (x.abs() + 0.1).log(), 10000.0 ** -x.abs()),
        "roots": digest(x.abs().pow(0.5), x.abs().sqrt(), x.abs().rsqrt()),
        "batched products": digest(q @ q.transpose(-1, -2)),
        "convolution": digest(F.conv2d(images, kernels, stride=8)),
        "resizing": digest(F.interpolate(images, size=(50, 50), mode="bicubic", antialias=True)),
        "gradients of norms": gradients(lambda a, b, c: F.layer_norm(a, (256,), b, c), x, scale, shift),
        "gradients of functions": gradients(lambda a: F.gelu(F.silu(a), approximate="tanh"), x),
        "gradients of attention": gradients(lambda a: attention(a, a, a, attn_mask=mask), q),
        "AdamW": digest(parameter),
    }


if __name__ == "__main__":
    use_portable_products()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    for name, value in digests().items():
        print(f"{name}: {value}")
