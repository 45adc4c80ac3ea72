"""Table 10's CAM row: class activation by the gradient of the image-text score."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.encoders.dual.interface import DualEncoder


def class_activation(encoder: DualEncoder, tokens: Tensor, text: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) of cos(f_I, f_T) over the patch tokens A that the last visual block reads.

        a_c = mean_n d cos(f_I, f_T) / d A_nc,   cam_n = relu(sum_c a_c A_nc)

    The last block's own outputs are no use: only CLS's is read of them.

    Args:
        encoder: The dual encoder.
        tokens: What its first block reads [B, 1 + N, W].
        text: f_T [B, D].

    Returns:
        cam [B, N], without a gradient.
    """
    with torch.no_grad():
        inner = encoder.run(tokens.detach(), 0, encoder.depth - 1)
    with torch.enable_grad():
        inner = inner.detach().requires_grad_()
        image = encoder.project(encoder.run(inner, encoder.depth - 1, encoder.depth)[:, 0])
        (gradient,) = torch.autograd.grad((image * text.detach()).sum(), inner)
    weights = gradient[:, 1:].mean(1, keepdim=True)  # a_c [B, 1, W]
    return (weights * inner.detach()[:, 1:]).sum(-1).relu()
