"""Kernels: each file holds one operation and its plain PyTorch reference. `attention` and `target_logprobs` serve every device,
the others run where `on_triton` says so.

Legend: B rows, T query positions, S key positions, H query heads, K key/value heads, D head size, C channels, V words.
"""
from kernels.attention import attention, documents
from kernels.cross_entropy import target_logprobs
from kernels.device import TRITON, on_triton

if TRITON:  # on other systems than Linux the model's own PyTorch lines serve
    from kernels.decode import decode
    from kernels.rms_norm import add_rms_norm, rms_norm
    from kernels.rope import rope
    from kernels.swiglu import swiglu
