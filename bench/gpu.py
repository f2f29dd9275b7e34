"""Rows measured on a GPU: our Triton kernels beside PyTorch's, and a training step beside transformers."""
import torch
import torch.nn.functional as F

import kernels
from bench.timing import best_seconds, copy_rate, forward_backward, matmul_rate, peak_memory, row
from bench.training import packed_starts, packed_steps
from training import estimate

HEADS = ((64, 14, 2), (128, 28, 4))  # (D, H, K) of Qwen2-0.5B and 7B


def attention(device="cuda", T=8192, B=4):
    """Dense rows beside SDPA, packed ones beside FlexAttention with the same document mask."""
    rate = matmul_rate(torch.bfloat16, device)
    for D, H, K in HEADS:
        dense = torch.zeros(B, T, dtype=torch.int64, device=device)
        yield from attention_rows("dense", dense, D, H, K, rate)
        for mean in (256, 1024, 4096):
            starts = torch.stack([packed_starts(T, mean, b) for b in range(B)]).to(device)
            yield from attention_rows(f"mean_{mean}", starts, D, H, K, rate)


def attention_rows(kind, starts, D, H, K, rate):
    """Forward and backward beside each peer, in TFLOP/s of the work that the mask leaves."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    (B, T), device, flex = starts.shape, starts.device, torch.compile(flex_attention)
    q, k, v = (torch.randn(B, T, n, D, device=device, dtype=torch.bfloat16, requires_grad=True) for n in (H, K, K))
    mask = kernels.document_mask(starts)
    transposed = [x.transpose(1, 2) for x in (q, k, v)]
    block_mask = create_block_mask(lambda b, h, i, j: (j <= i) & (j >= starts[b, i]), B, None, T, T, device=device)
    peers = {"FlexAttention": lambda: flex(*transposed, block_mask=block_mask, enable_gqa=True)}
    if kind == "dense":
        peers["SDPA"] = lambda: F.scaled_dot_product_attention(*transposed, is_causal=True, enable_gqa=True)
    ours = forward_backward(lambda: kernels.attention(q, k, v, mask), (q, k, v))
    work = 4 * H * D * float((torch.arange(T, device=device) - starts + 1).sum())
    for name, function in peers.items():
        theirs = forward_backward(function, (q, k, v))
        torch.testing.assert_close(ours[0](), theirs[0]().transpose(1, 2), atol=2e-2, rtol=2e-2)
        for part, mine, other, flops in zip(("forward", "backward"), ours, theirs, (work, 2.5 * work)):
            a, b = best_seconds([mine, other])
            yield row(f"attention_{part}_{kind}_d{D}_{name}", f"attention {part}, {kind}, D={D}", flops / a / 1e12,
                      flops / b / 1e12, unit="TFLOP/s", of=name, floor=flops / rate / a)


def loss(device="cuda", T=16384):
    """Head and loss, forward and backward, beside cross_entropy on all logits: time and peak memory."""
    rate = matmul_rate(torch.bfloat16, device)
    for C, V in ((896, 151936), (3584, 152064)):
        x, w = torch.randn(T, C, device=device), torch.randn(V, C, device=device) * 0.02
        x, w = (t.bfloat16().requires_grad_() for t in (x, w))
        targets = torch.randint(V, (T,), device=device)

        def ours(x=x, w=w, targets=targets):
            return torch.autograd.grad(kernels.target_logprobs(x, w, targets).sum(), (x, w))

        def theirs(x=x, w=w, targets=targets):
            return torch.autograd.grad(-F.cross_entropy((x @ w.T).float(), targets, reduction="sum"), (x, w))

        torch.testing.assert_close(ours()[0], theirs()[0], atol=2e-2, rtol=5e-2)
        a, b = best_seconds([ours, theirs])
        yield row(f"head_{C}", f"head and loss, {T} tokens, C={C}", a, b, of="cross_entropy",
                  floor=6 * T * C * V / rate / a)
        yield row(f"head_memory_{C}", "its peak memory", peak_memory(ours), peak_memory(theirs), unit="GiB",
                  of="cross_entropy")


def elementwise(device="cuda", T=16384, C=3584):
    """RMSNorm and SwiGLU beside torch.compile; the floor is a copy of the bytes they must move."""
    copied = copy_rate(device)
    x, y, w = (torch.randn(*shape, device=device, dtype=torch.bfloat16, requires_grad=True)
               for shape in ((T, C), (T, C), (C,)))
    cases = [  # name, inputs, reads and writes of a (T, C) tensor forward and backward, ours, plain
        ("rms_norm", (x, w), (2, 3), lambda: kernels.rms_norm(x, w, 1e-6), lambda: F.rms_norm(x, (C,), w, 1e-6)),
        ("swiglu", (x, y), (3, 5), lambda: kernels.swiglu(x, y), lambda: F.silu(x) * y)]
    for name, inputs, moves, function, plain in cases:
        ours, theirs = forward_backward(function, inputs), forward_backward(torch.compile(plain), inputs)
        torch.testing.assert_close(ours[0](), theirs[0](), atol=2e-2, rtol=2e-2)
        for part, mine, other, n in zip(("forward", "backward"), ours, theirs, moves):
            a, b = best_seconds([mine, other], 20)
            yield row(f"{name}_{part}", f"{name} {part}, {T} x {C}", n * x.nbytes / a / 1e9, n * x.nbytes / b / 1e9,
                      unit="GB/s", of="torch.compile", floor=n * x.nbytes / copied / a)


def decode(device="cuda", B=64, S=8192):
    """Attention of one new token in each of B texts with S cached, beside SDPA; the floor is one read of the cache."""
    copied = copy_rate(device)
    for D, H, K in HEADS:
        q, k, v = (torch.randn(B, n, heads, D, device=device, dtype=torch.bfloat16)
                   for n, heads in ((1, H), (S, K), (S, K)))
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


def training_step(device="cuda", T=8192):
    """A training step on one packed row (documents of 1,024 tokens) beside transformers, compiled."""
    rate = matmul_rate(torch.bfloat16, device)
    for name in ("0.5B", "1.5B"):
        shape = estimate.SHAPES[f"Qwen2-{name}"]
        ours, theirs, flops = packed_steps(shape, torch.bfloat16, T, 1024, device, compiled=True)
        mine, other = best_seconds([ours, theirs])
        yield row(f"train_step_{name}", f"training step of Qwen2-{name}, {T} tokens packed", mine, other,
                  of="transformers, sdpa, compiled", floor=flops / rate / mine)
