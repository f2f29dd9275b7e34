"""Which tensors the Triton kernels compute on, and what the tile tables need to know about a GPU."""
import functools
import importlib.util
import os

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's interpreter runs the kernels on CPU tensors
TRITON = (importlib.util.find_spec("triton") is not None and torch.version.hip is None
          and os.environ.get("KERNELS") != "torch")


def on_triton(x: torch.Tensor) -> bool:
    """Whether the Triton kernels compute on x: on an NVIDIA GPU or in the interpreter. KERNELS=torch in the
    environment: never.

    The interpreter does not get bfloat16: its tl.dot multiplies the bit patterns as integers (Triton 3.6 to 3.9).
    """
    return TRITON and (x.is_cuda or (INTERPRETED and x.dtype != torch.bfloat16))


@functools.lru_cache
def gpu_generation(device: torch.device) -> str:
    """A key of the tile tables. ampere: A100; hopper: H100, H200; blackwell: B200; small: cards with 99 KiB of shared
    memory per block (RTX 30 to 50, L4, L40); cpu: the interpreter.
    """
    if device.type == "cpu":
        return "cpu"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        raise ValueError(f"the kernels need compute capability 8.0 (Ampere) or newer, "
                         f"{torch.cuda.get_device_name(device)} has {major}.{minor}; "
                         "set KERNELS=torch in the environment to run without them")
    return {(8, 0): "ampere", (9, 0): "hopper", (10, 0): "blackwell", (10, 3): "blackwell"}.get((major, minor), "small")


@functools.lru_cache
def num_sms(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU; 2 for the interpreter, so that loops over programs run more than once."""
    return 2 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count
