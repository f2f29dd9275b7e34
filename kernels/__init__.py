"""The operations of the model, each in a file of its own: formula, plain PyTorch, and the choice of what computes it.

Where `device.on_triton` says so, an operation runs on the Triton kernels in the *_triton.py file beside it; everywhere
else on PyTorch. README.md explains the kernels.

Legend: B rows, T query positions, S key positions, H query heads, K key/value heads, D head size,
C channels, V vocabulary.
"""
from kernels.attention import attention, document_mask
from kernels.cross_entropy import most_likely, target_logprobs
from kernels.device import on_triton
from kernels.rms_norm import add_rms_norm, rms_norm
from kernels.rope import rope
from kernels.swiglu import swiglu
