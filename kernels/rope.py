"""Rotary position embedding of queries and keys (Su et al., RoFormer, 2021), with the channel pairs of Llama and Qwen2.

Channels a = x[i] and b = x[i + D/2] of a head at position p are rotated by the angle p theta^(-2i/D):

    a' = a cos - b sin        b' = b cos + a sin
"""
import torch
from torch import Tensor

from kernels.device import TRITON, on_triton

if TRITON:
    from kernels import rope_triton


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q (B, T, H, D), k (B, T, K, D), cos and sin (B, T, 1, D) with two equal halves -> q and k, rotated."""
    D = q.shape[-1]
    if on_triton(q) and D & (D - 1) == 0:  # Triton's tiles are powers of two
        return rope_triton.rope(q, k, cos, sin)
    return rope_reference(q, k, cos, sin)


def rope_reference(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """The definition in PyTorch."""
    def rotate(x):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin
    return rotate(q), rotate(k)
