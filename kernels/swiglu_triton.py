"""SwiGLU in Triton, forward and backward: y = silu(a) * up with a = gate, silu(a) = a s and s = 1 / (1 + exp(-a)).

    dgate = dy * up * s (1 + a (1 - s))          dup = dy * a s

Bytes moved per value in bfloat16: 6 forward, 10 backward. Eager PyTorch moves 10 and 18, and saves silu(gate) for the
backward: 2 bytes more.
"""
import torch
import triton
import triton.language as tl

BLOCK = 4096


@triton.jit
def forward_kernel(gate_ptr, up_ptr, y_ptr, n, BLOCK: tl.constexpr):
    i = tl.cast(tl.program_id(0), tl.int64) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(gate_ptr + i, mask=i < n, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + i, mask=i < n, other=0.0).to(tl.float32)
    tl.store(y_ptr + i, (a * tl.sigmoid(a) * up).to(y_ptr.dtype.element_ty), mask=i < n)


@triton.jit
def backward_kernel(dy_ptr, gate_ptr, up_ptr, dgate_ptr, dup_ptr, n, BLOCK: tl.constexpr):
    i = tl.cast(tl.program_id(0), tl.int64) * BLOCK + tl.arange(0, BLOCK)
    dy = tl.load(dy_ptr + i, mask=i < n, other=0.0).to(tl.float32)
    a = tl.load(gate_ptr + i, mask=i < n, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + i, mask=i < n, other=0.0).to(tl.float32)
    s = tl.sigmoid(a)
    tl.store(dgate_ptr + i, (dy * up * s * (1.0 + a * (1.0 - s))).to(dgate_ptr.dtype.element_ty), mask=i < n)
    tl.store(dup_ptr + i, (dy * a * s).to(dup_ptr.dtype.element_ty), mask=i < n)


@torch.library.custom_op("nanomarco::swiglu", mutates_args=())
def _swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(gate)
    forward_kernel[(triton.cdiv(gate.numel(), BLOCK),)](gate, up, y, gate.numel(), BLOCK, num_warps=8)
    return y


@_swiglu.register_fake
def _(gate, up):
    return torch.empty_like(gate)


@torch.library.custom_op("nanomarco::swiglu_backward", mutates_args=())
def _swiglu_backward(dy: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    dgate, dup = torch.empty_like(gate), torch.empty_like(up)
    backward_kernel[(triton.cdiv(gate.numel(), BLOCK),)](dy.contiguous(), gate, up, dgate, dup, gate.numel(), BLOCK,
                                                               num_warps=8)
    return dgate, dup


@_swiglu_backward.register_fake
def _(dy, gate, up):
    return torch.empty_like(gate), torch.empty_like(up)


_swiglu.register_autograd(lambda ctx, dy: _swiglu_backward(dy, *ctx.saved_tensors),
                          setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """gate and up of one shape -> silu(gate) * up."""
    return _swiglu(gate.contiguous(), up.contiguous())
