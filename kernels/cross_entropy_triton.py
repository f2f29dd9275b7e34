"""The target's log-probability from a row of logits in Triton; the gradient overwrites the logits.

    logp = x[target] - lse,   lse = log sum_v exp(x[v])          d logp / d x[v] = (v == target) - exp(x[v] - lse)

Two passes over the row: maximum and sum together (Milakov and Gimelshein, Online normalizer calculation for softmax,
2018), then the gradient. Bytes moved per logit in bfloat16: 2 forward, 6 with the gradient. All arithmetic is float32.
"""
import torch
import triton
import triton.language as tl

BLOCK = 8192
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def logprob_kernel(x_ptr, target_ptr, g_ptr, logp_ptr, V,
                   GRADIENT: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    """One program: one row. EVEN: the upstream gradient of every row is 1, and g_ptr is not read."""
    row, column = tl.cast(tl.program_id(0), tl.int64), tl.arange(0, BLOCK)
    x_ptr += row * V  # 32k rows of 152,064 columns need 64-bit offsets
    target = tl.load(target_ptr + row)
    picked = tl.load(x_ptr + target).to(tl.float32)
    maximum, total = -1e30, 0.0
    for v0 in range(0, V, BLOCK):
        x = tl.load(x_ptr + v0 + column, mask=v0 + column < V, other=-float("inf")).to(tl.float32)
        new_maximum = tl.maximum(maximum, tl.max(x, 0))
        total = total * tl.exp2((maximum - new_maximum) * LOG2E) + tl.sum(tl.exp2((x - new_maximum) * LOG2E), 0)
        maximum = new_maximum
    lse = maximum + tl.log2(total) / LOG2E
    tl.store(logp_ptr + row, picked - lse)
    if GRADIENT:
        g = 1.0 if EVEN else tl.load(g_ptr + row)
        for v0 in range(0, V, BLOCK):
            v = v0 + column
            x = tl.load(x_ptr + v, mask=v < V, other=0.0).to(tl.float32)
            p = tl.exp2((x - lse) * LOG2E)
            tl.store(x_ptr + v, (tl.where(v == target, 1.0 - p, -p) * g).to(x_ptr.dtype.element_ty), mask=v < V)


def logprobs_of_logits(logits, targets, g, gradient):
    """logits (n, V), targets (n,) int64, g (n,) float32 or None for ones -> log-probabilities (n,) float32.

    gradient: also overwrite the logits with the gradient of sum(g * logp).
    """
    n, V = logits.shape
    logp = torch.empty(n, dtype=torch.float32, device=logits.device)
    block = min(BLOCK, triton.next_power_of_2(V))
    logprob_kernel[(n,)](logits, targets, logp if g is None else g, logp, V, gradient, g is None, block,
                         num_warps=16 if V >= BLOCK else 4)
    return logp
