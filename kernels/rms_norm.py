"""RMSNorm, alone or after a residual addition (Zhang and Sennrich, Root Mean Square Layer Normalization, 2019).

    h = x + residual                                  (add_rms_norm only)
    y = h / sqrt(mean(h^2) + eps) * weight            the mean and the quotient in float32

As in transformers, the quotient is rounded to x's dtype before it is multiplied by the weight.
"""
import torch
from torch import Tensor

from kernels.device import TRITON, on_triton

if TRITON:
    from kernels import rms_norm_triton


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (..., C), weight (C,) -> y (..., C)."""
    if on_triton(x):
        return rms_norm_triton.rms_norm(x, weight, eps)
    return rms_norm_reference(x, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x and residual (..., C), weight (C,) -> (x + residual, its norm)."""
    if on_triton(x):
        return rms_norm_triton.add_rms_norm(x, residual, weight, eps)
    h = x + residual
    return h, rms_norm_reference(h, weight, eps)


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The definition in PyTorch."""
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    return y.to(x.dtype) * weight.to(x.dtype)
