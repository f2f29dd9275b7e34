"""Rotary position embedding of queries and keys in one Triton kernel; the formula is in rope.py.

The gradient is rotated back: the same kernel with -sin.

Bytes moved per token in bfloat16: 4 (H + K) D to read and write the heads, 2 D for cos and sin. Eager PyTorch negates,
concatenates, multiplies and adds the halves separately and moves 18 (H + K) D.

Legend: B rows, T positions, H query heads, K key/value heads, D head size.
"""
import torch
import triton
import triton.language as tl


@triton.jit
def _rotate(x_ptr, y_ptr, cos, sin, token, HEADS, D: tl.constexpr, BLOCK: tl.constexpr):
    """Rotate all heads of one token; BLOCK is a power of two, at least HEADS."""
    h, i = tl.arange(0, BLOCK)[:, None], tl.arange(0, D // 2)[None, :]
    offset = (token * HEADS + h) * D + i
    a = tl.load(x_ptr + offset, mask=h < HEADS, other=0.0).to(tl.float32)
    b = tl.load(x_ptr + offset + D // 2, mask=h < HEADS, other=0.0).to(tl.float32)
    tl.store(y_ptr + offset, (a * cos - b * sin).to(y_ptr.dtype.element_ty), mask=h < HEADS)
    tl.store(y_ptr + offset + D // 2, (b * cos + a * sin).to(y_ptr.dtype.element_ty), mask=h < HEADS)


@triton.jit
def rope_kernel(q_ptr, k_ptr, cos_ptr, sin_ptr, q_out, k_out, sign, H, K,
                D: tl.constexpr, HB: tl.constexpr, KB: tl.constexpr):
    """One program: one token. sign: 1.0 rotates, -1.0 rotates back. HB, KB: powers of two, at least H and K."""
    token, i = tl.cast(tl.program_id(0), tl.int64), tl.arange(0, D // 2)[None, :]
    cos = tl.load(cos_ptr + token * D + i).to(tl.float32)  # the two halves of cos and sin are equal
    sin = tl.load(sin_ptr + token * D + i).to(tl.float32) * sign
    _rotate(q_ptr, q_out, cos, sin, token, H, D, HB)
    _rotate(k_ptr, k_out, cos, sin, token, K, D, KB)


@torch.library.custom_op("nanomarco::rope", mutates_args=())
def _rope(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
          sign: float) -> tuple[torch.Tensor, torch.Tensor]:
    (B, T, H, D), K = q.shape, k.shape[2]
    q_out, k_out = torch.empty_like(q), torch.empty_like(k)
    rope_kernel[(B * T,)](q, k, cos, sin, q_out, k_out, sign, H, K, D,
                          triton.next_power_of_2(H), triton.next_power_of_2(K))
    return q_out, k_out


@_rope.register_fake
def _(q, k, cos, sin, sign):
    return torch.empty_like(q), torch.empty_like(k)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[2:4])
    ctx.sign = inputs[4]


def _backward(ctx, dq, dk):
    return *_rope(dq.contiguous(), dk.contiguous(), *ctx.saved_tensors, -ctx.sign), None, None, None


_rope.register_autograd(_backward, setup_context=_save)


def rope(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `rope.rope`; D must be a power of two."""
    return _rope(q.contiguous(), k.contiguous(), cos.contiguous(), sin.contiguous(), 1.0)
