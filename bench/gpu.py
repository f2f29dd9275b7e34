"""Rows measured on a GPU: our Triton kernels beside their rivals; those of training are in gpu_training.py.

With device="cpu" every function runs small and in float32, for the dry pass of bench/gpu_report.py in Triton's
interpreter. A rival that refuses a case, is not installed or computes something else gets a row without its number and
with the reason in "not_run".
"""
import torch
import torch._functorch.config
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import kernels
from bench.gpu_training import slice_of_7b, tiny_base, training_step
from bench.timing import (
    attempt,
    best_seconds,
    copy_rate,
    forward_backward,
    matmul_rate,
    noted,
    peak_memory,
    row,
)
from bench.training import packed_starts
from kernels.rope import rope_reference

HEADS = ((64, 14, 2), (128, 28, 4))  # (D, H, K) of Qwen2-0.5B and 7B


def attention(device="cuda", T=8192, B=4):
    """Dense rows and packed ones beside FlexAttention and cuDNN with the same mask; dense ones also beside SDPA."""
    dtype, heads, means = torch.bfloat16, HEADS, (256, 1024, 4096)
    if device == "cpu":
        dtype, heads, means, T, B = torch.float32, ((16, 2, 1),), (12,), 40, 1
    rate = matmul_rate(dtype, device)
    for D, H, K in heads:
        dense = torch.zeros(B, T, dtype=torch.int64, device=device)
        yield from attention_rows("dense", dense, D, H, K, rate, dtype)
        for mean in means:
            starts = torch.stack([packed_starts(T, mean, b) for b in range(B)]).to(device)
            yield from attention_rows(f"mean_{mean}", starts, D, H, K, rate, dtype)


def attention_rows(kind, starts, D, H, K, rate, dtype):
    """Forward and backward beside each rival, in TFLOP/s of the work that the mask leaves."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    (B, T), device = starts.shape, starts.device
    flex = compiled(flex_attention, device)
    q, k, v = (torch.randn(B, T, n, D, device=device, dtype=dtype, requires_grad=True) for n in (H, K, K))
    mask = kernels.document_mask(starts)
    transposed = [x.transpose(1, 2) for x in (q, k, v)]
    block_mask = create_block_mask(lambda b, h, i, j: (j <= i) & (j >= starts[b, i]), B, None, T, T, device=device)
    position = torch.arange(T, device=device)
    visible = dict(is_causal=True)
    if kind != "dense":
        visible = dict(attn_mask=(position >= starts[:, None, :, None]) & (position <= position[:, None]))

    def sdpa():
        return F.scaled_dot_product_attention(*transposed, **visible, enable_gqa=True).transpose(1, 2)

    def cudnn():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return sdpa()

    rivals = {"FlexAttention": lambda: flex(*transposed, block_mask=block_mask, enable_gqa=True).transpose(1, 2),
              "cuDNN": cudnn}
    if kind == "dense":
        rivals["SDPA"] = sdpa
    work = 4 * H * D * float((position - starts + 1).sum())
    for name, part, a, b, reason in beside(lambda: kernels.attention(q, k, v, mask), rivals, (q, k, v)):
        flops = work if part == "forward" else 2.5 * work
        yield noted(row(f"attention_{part}_{kind}_d{D}_{name}", f"attention {part}, {kind}, D={D}", flops / a / 1e12,
                        b and flops / b / 1e12, unit="TFLOP/s", of=name, floor=flops / rate / a), reason)


def loss(device="cuda", T=16384):
    """Head and loss, forward and backward, beside cross_entropy on all logits and Liger's: time and peak memory."""
    dtype, shapes = torch.bfloat16, ((896, 151936), (3584, 152064))
    if device == "cpu":
        dtype, shapes, T = torch.float32, ((32, 50),), 40
    rate = matmul_rate(dtype, device)
    for C, V in shapes:
        x, w = torch.randn(T, C, device=device), torch.randn(V, C, device=device) * 0.02
        x, w = (t.to(dtype).requires_grad_() for t in (x, w))
        targets = torch.randint(V, (T,), device=device)

        def ours(x=x, w=w, targets=targets):
            return torch.autograd.grad(-kernels.target_logprobs(x, w, targets).sum(), (x, w))

        def eager(x=x, w=w, targets=targets):
            return torch.autograd.grad(F.cross_entropy((x @ w.T).float(), targets, reduction="sum"), (x, w))

        def liger(x=x, w=w, targets=targets):
            from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
            return torch.autograd.grad(LigerFusedLinearCrossEntropyLoss(reduction="sum")(w, x, targets), (x, w))

        for name, rival in (("cross_entropy", eager), ("Liger", liger)):
            measured, reason = attempt(lambda ours=ours, rival=rival: beside_gradients(ours, rival))
            a, b, peak = measured or (best_seconds([ours])[0], None, None)
            yield noted(row(f"head_{C}_{name}", f"head and loss, {T} tokens, C={C}", a, b, of=name,
                            floor=6 * T * C * V / rate / a), reason)
            yield noted(row(f"head_memory_{C}_{name}", "its peak memory", peak_memory(ours), peak, unit="GiB", of=name),
                        reason)


def elementwise(device="cuda", T=16384, C=3584):
    """RMSNorm, SwiGLU and RoPE beside torch.compile; the floor is a copy of the bytes they must move."""
    dtype, D, H, K = torch.bfloat16, 128, 28, 4
    if device == "cpu":
        dtype, T, C, D, H, K = torch.float32, 8, 96, 16, 2, 1
    copied = copy_rate(device)
    x, y, w, q, k = (torch.randn(*shape, device=device, dtype=dtype, requires_grad=True)
                     for shape in ((T, C), (T, C), (C,), (1, T, H, D), (1, T, K, D)))
    angle = torch.rand(1, T, 1, D // 2, device=device).repeat(1, 1, 1, 2)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    rotated = 2 * (q.nbytes + k.nbytes) + cos.nbytes + sin.nbytes
    cases = [  # name, inputs, bytes read and written forward and backward, ours, plain
        ("rms_norm", (x, w), (2 * x.nbytes, 3 * x.nbytes), lambda: kernels.rms_norm(x, w, 1e-6),
         lambda: F.rms_norm(x, (C,), w, 1e-6)),
        ("swiglu", (x, y), (3 * x.nbytes, 5 * x.nbytes), lambda: kernels.swiglu(x, y), lambda: F.silu(x) * y),
        ("rope", (q, k), (rotated, rotated), lambda: kernels.rope(q, k, cos, sin),
         lambda: rope_reference(q, k, cos, sin))]
    for name, inputs, moved, ours, plain in cases:
        for of, part, a, b, reason in beside(ours, {"torch.compile": compiled(plain, device)}, inputs, 20):
            n = moved[part == "backward"]
            yield noted(row(f"{name}_{part}", f"{name} {part}, {T} tokens of 7B", n / a / 1e9, b and n / b / 1e9,
                            unit="GB/s", of=of, floor=n / copied / a), reason)


def decode(device="cuda", B=64, S=8192):
    """Attention of one new token in each of B texts with S cached, beside SDPA; the floor is one read of the cache."""
    dtype, heads = torch.bfloat16, HEADS
    if device == "cpu":
        dtype, heads, B, S = torch.float32, ((16, 2, 1),), 2, 40
    copied = copy_rate(device)
    for D, H, K in heads:
        q, k, v = (torch.randn(B, n, h, D, device=device, dtype=dtype) for n, h in ((1, H), (S, K), (S, K)))
        mask = kernels.document_mask(torch.zeros(B, 1, dtype=torch.int64, device=device))
        transposed = [x.transpose(1, 2) for x in (q, k, v)]

        def ours(q=q, k=k, v=v, mask=mask):
            return kernels.attention(q, k, v, mask)

        def theirs(transposed=transposed):
            return F.scaled_dot_product_attention(*transposed, enable_gqa=True)

        with torch.no_grad():
            torch.testing.assert_close(ours(), theirs().transpose(1, 2), atol=2e-2, rtol=2e-2)
            a, b = best_seconds([ours, theirs], 20)
        yield row(f"decode_d{D}", f"decoding, {B} texts, {S} cached, D={D}", a, b, of="SDPA",
                  floor=(k.nbytes + v.nbytes) / copied / a)


# ---------------------------------------------------------------------- rivals

def compiled(function, device):
    """torch.compile for the shapes that come; on a CPU only its tracing."""
    torch._functorch.config.donated_buffer = False  # its backward runs more than once here
    return torch.compile(function, dynamic=False, backend="eager" if str(device) == "cpu" else "inductor")


def beside(ours, rivals, inputs, rounds=5):
    """Yield (rival, part, seconds of ours, of the rival or None, why None) of each rival's forward and backward."""
    mine = forward_backward(ours, inputs)
    for name, rival in rivals.items():
        theirs, reason = attempt(lambda rival=rival: checked(rival, inputs, mine[0]()))
        for i, part in enumerate(("forward", "backward")):
            a, *b = best_seconds([mine[i], *([theirs[i]] if theirs else [])], rounds)
            yield name, part, a, b[0] if b else None, reason


def checked(rival, inputs, expected):
    """Its forward and backward, once both have run and the output is the expected one."""
    parts = forward_backward(rival, inputs)
    torch.testing.assert_close(parts[0](), expected, atol=2e-2, rtol=2e-2)
    parts[1]()
    return parts


def beside_gradients(ours, rival):
    """(seconds of ours, of the rival, the rival's peak memory), once the first gradients agree."""
    torch.testing.assert_close(rival()[0], ours()[0], atol=2e-2, rtol=5e-2)
    return *best_seconds([ours, rival]), peak_memory(rival)


GPU = {"attention": attention, "loss": loss, "elementwise": elementwise, "decode": decode, "tiny": tiny_base,
       "slice": slice_of_7b, "step": training_step}
