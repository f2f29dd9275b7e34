"""Kernels: each file holds one operation, its plain PyTorch reference and one public function for every device.

Legend: B rows, T query positions, S key positions, H query heads, K key/value heads, D head size, C channels, V words.
"""
from kernels.attention import attention, documents
from kernels.cross_entropy import target_logprobs
