"""Which tensors the Triton kernels serve, and how a GPU is named in the tables of tile sizes."""
import functools
import importlib.util
import os

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's interpreter: the kernels run on CPU tensors, step by step
TRITON = importlib.util.find_spec("triton") is not None and torch.version.hip is None and os.environ.get("KERNELS") != "torch"


def on_triton(x):
    """Whether the kernels compute on x: on an NVIDIA GPU, or under the interpreter. KERNELS=torch in the environment: never.

    The interpreter is kept from bfloat16, whose bit patterns its tl.dot multiplies as if they were integers (Triton 3.6 to 3.9).
    """
    return TRITON and (x.is_cuda or (INTERPRETED and x.dtype != torch.bfloat16))


@functools.lru_cache
def generation(device):
    """ampere: A100; hopper: H100, H200; blackwell: B200; small: cards with 99 KiB of shared memory per block (RTX 30 to 50, L4,
    L40); cpu: the interpreter."""
    if device.type == "cpu":
        return "cpu"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        raise ValueError(f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, the kernels need "
                         "8.0 (Ampere) or more; set KERNELS=torch in the environment to compute without them")
    return {(8, 0): "ampere", (9, 0): "hopper", (10, 0): "blackwell", (10, 3): "blackwell"}.get((major, minor), "small")


@functools.lru_cache
def processors(device):
    """Streaming multiprocessors; the interpreter has two, so that loops over programs have something to do."""
    return 2 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count
