"""Which tensors the Triton kernels serve, and how a GPU is named in the tables of tile sizes."""
import functools
import importlib.util
import os

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's interpreter: the kernels run on CPU tensors, step by step
TRITON = importlib.util.find_spec("triton") is not None and torch.version.hip is None  # Linux has it; elsewhere PyTorch serves


def on_triton(x):
    """Whether x is computed on by the kernels: on an NVIDIA GPU from Ampere on, or under the interpreter.

    The interpreter is kept from bfloat16, whose bit patterns its tl.dot multiplies as if they were integers (Triton 3.6 to 3.9).
    """
    if x.is_cuda:
        return TRITON and generation(x.device) is not None
    return TRITON and INTERPRETED and x.dtype != torch.bfloat16


@functools.lru_cache
def generation(device):
    """ampere: A100; hopper: H100, H200; blackwell: B200; small: cards with 99 KiB of shared memory per block (RTX 30 to 50, L4,
    L40); cpu: the interpreter; None: older GPUs."""
    if device.type == "cpu":
        return "cpu"
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) == (8, 0):
        return "ampere"
    return {9: "hopper", 10: "blackwell"}.get(major, "small" if major >= 8 else None)
