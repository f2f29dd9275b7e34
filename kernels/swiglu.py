"""SwiGLU: silu(gate) * up, silu(a) = a / (1 + exp(-a)) (Shazeer, GLU Variants Improve Transformer, 2020)."""
import torch.nn.functional as F
from torch import Tensor

from kernels.device import TRITON, on_triton

if TRITON:
    from kernels import swiglu_triton


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """gate and up of one shape -> silu(gate) * up."""
    if on_triton(gate):
        return swiglu_triton.swiglu(gate, up)
    return swiglu_reference(gate, up)


def swiglu_reference(gate: Tensor, up: Tensor) -> Tensor:
    """The definition in PyTorch."""
    return F.silu(gate) * up
