"""Log-probabilities of the targets straight from the last hidden states: the (B*T, V) logits never exist.

For a vocabulary of 151,936 the logits of 32k tokens are 18.6 GiB in float32. Here they are made for a chunk of tokens
at a time and turned into one number per token; during training the same chunk is turned into its gradient at once.
"""
import torch

from kernels.device import on_triton

CHUNK = 1 << 22  # logits alive at a time on the CPU: 16 MiB in float32; each chunk also reads and writes all of dW once


def target_logprobs(x, weight, targets, ignore=-100):
    """x (N, C), weight (V, C), targets (N,) int64 -> log softmax(x weight')[n, targets[n]] in float32, 0 where ignored."""
    keep = (targets != ignore).nonzero()[:, 0]  # rows without a target never reach the head
    if torch.is_grad_enabled():
        logp = _TargetLogprobs.apply(x[keep], weight, targets[keep])
    else:
        logp = _forward(x[keep], weight, targets[keep], None, None)
    return torch.zeros(x.shape[0], dtype=torch.float32, device=x.device).index_copy(0, keep, logp)


def target_logprobs_reference(x, weight, targets, ignore=-100):
    """The definition."""
    logp = torch.log_softmax((x @ weight.T).float(), -1)
    picked = logp.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    return torch.where(targets == ignore, 0.0, picked)


def chunks(n, V, device):
    rows = 4096 if device.type == "cuda" else max(16, CHUNK // V)
    return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]


class _TargetLogprobs(torch.autograd.Function):
    """Forward makes the gradients for an upstream gradient of 1 on every token; backward scales them.

    d logp[t] / d logits[t] = onehot(target) - softmax, so dx[t] = (onehot - p) weight and dW = sum_t (onehot - p)' x[t].
    A loss that is a sum over tokens sends the same upstream gradient g to all of them, and dx, dW times g is the answer
    without computing the logits twice. An uneven g (DPO, a weighted loss) recomputes them chunk by chunk.
    """

    @staticmethod
    def forward(ctx, x, weight, targets):
        dx, dw = torch.empty_like(x), torch.zeros(weight.shape, dtype=torch.float32, device=x.device)
        logp = _forward(x, weight, targets, dx, dw)
        ctx.save_for_backward(x, weight, targets, dx, dw)
        return logp

    @staticmethod
    def backward(ctx, g):
        x, weight, targets, dx, dw = ctx.saved_tensors
        if len(g) == 0 or bool((g == g[0]).all()):
            scale = g[0] if len(g) else 1.0
            return (dx * scale).to(x.dtype), (dw * scale).to(weight.dtype), None
        dx, dw = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)
        w, room = weight.to(x.dtype), buffers(x, weight)
        for rows in chunks(len(x), len(weight), x.device):
            _chunk(x[rows], w, targets[rows], g[rows], dx[rows], dw, room)
        return dx, dw.to(weight.dtype), None


def _forward(x, weight, targets, dx, dw):
    """Log-probabilities chunk by chunk, and the gradients into dx and dw unless they are None."""
    logp = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    w, room = weight.to(x.dtype), buffers(x, weight)
    for rows in chunks(len(x), len(weight), x.device):
        logp[rows] = _chunk(x[rows], w, targets[rows], None, None if dx is None else dx[rows], dw, room)
    return logp


def buffers(x, weight):
    """Room for one chunk's logits in x's dtype, in float32 (the same when x is), and its softmax: made once, as fresh pages cost
    more than the math."""
    n = chunks(len(x), len(weight), x.device)
    n = n[0].stop if n else 0
    if on_triton(x):  # float32 lives in registers only
        return [torch.empty(n, len(weight), dtype=x.dtype, device=x.device)]
    short, logits, p = (torch.empty(n, len(weight), dtype=d, device=x.device)
                        for d in (x.dtype, torch.float32, torch.float32))
    return short, short if x.dtype == torch.float32 else logits, p


def _chunk(x, w, targets, g, dx, dw, room):
    """Log-probabilities (n,) of one chunk; when dx is given, write dx and add to dw for upstream gradient g (None: ones)."""
    if on_triton(x):
        return _triton_chunk(x, w, targets, g, dx, dw, room[0][:len(x)])
    short, logits, p = (b[:len(x)] for b in room)
    torch.mm(x, w.T, out=short)
    if logits is not short:
        logits.copy_(short)  # (n, V)
    picked = logits.gather(1, targets[:, None])
    torch.softmax(logits, -1, out=p)
    lse = logits.amax(-1, keepdim=True) - p.amax(-1, keepdim=True).log()  # the likeliest word's p never underflows
    if dx is not None:
        p.scatter_add_(1, targets[:, None], picked.new_full(picked.shape, -1.0))  # softmax - onehot: minus the gradient
        short.copy_(p if g is None else p.mul_(g[:, None]))
        torch.mm(short, w, out=dx)
        dx.neg_()
        dw -= short.T @ x
    return (picked - lse)[:, 0]


def _triton_chunk(x, w, targets, g, dx, dw, logits):
    """The same with the row kernel, which turns the logits (n, V) into their gradient where they are."""
    from kernels.log_softmax import target_rows
    torch.mm(x, w.T, out=logits)
    logp = target_rows(logits, targets, g, dx is not None)
    if dx is not None:
        torch.mm(logits, w, out=dx)
        if x.is_cuda and x.dtype != torch.float32:  # bfloat16 factors, a float32 sum
            torch.addmm(dw, logits.T, x, out_dtype=torch.float32, out=dw)
        else:
            dw += logits.T @ x
    return logp
