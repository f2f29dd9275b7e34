"""Log-probabilities of the targets from the last hidden states; the (B*T, V) logits are never materialized.

For a vocabulary of 151,936 the logits of 32k tokens take 18.6 GiB in float32. Here they are computed for one chunk of
tokens at a time and reduced to one number per token; in training the chunk is turned into its gradient at once.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.device import TRITON, on_triton

if TRITON:
    from kernels.cross_entropy_triton import logprobs_of_logits

CHUNK = 1 << 22  # logits of one chunk on the CPU: 16 MiB in float32; each chunk also reads and writes all of dW once


def target_logprobs(x: Tensor, weight: Tensor, targets: Tensor, ignore: int = -100) -> Tensor:
    """x (N, C), weight (V, C), targets (N,) int64 -> log_softmax(x weight')[n, targets[n]], (N,) float32, 0 where
    ignored.
    """
    keep = (targets != ignore).nonzero()[:, 0]  # ignored tokens never reach the head
    if torch.is_grad_enabled():
        logp = _TargetLogprobs.apply(x[keep], weight, targets[keep])
    else:
        logp = _forward(x[keep], weight, targets[keep], None, None)
    return torch.zeros(x.shape[0], dtype=torch.float32, device=x.device).index_copy(0, keep, logp)


def target_logprobs_reference(x: Tensor, weight: Tensor, targets: Tensor, ignore: int = -100) -> Tensor:
    """The definition in PyTorch."""
    logp = torch.log_softmax((x @ weight.T).float(), -1)
    logp = logp.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    return torch.where(targets == ignore, 0.0, logp)


def most_likely(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """x (N, C), weight (V, C) -> (id of the largest logit, log-sum-exp of the logits in float32), each (N,).

    The vocabulary is taken in tiles: the weight, which is most of the traffic where N is small, is read once, and a
    tile of logits stays in the cache.
    """
    size = max(2048, (1 << 19 if x.device.type == "cpu" else 1 << 26) // max(1, len(x)))
    best, ids, totals = [], [], []  # of each tile: largest logit, its id, sum of exp(logit - largest)
    for begin in range(0, len(weight), size):
        logits = F.linear(x, weight[begin:begin + size].to(x.dtype)).float()
        largest, i = logits.max(-1)
        best.append(largest)
        ids.append(i + begin)
        totals.append(logits.sub_(largest[:, None]).exp_().sum(-1))
    maxima = torch.stack(best)  # (tiles, N)
    maximum, tile = maxima.max(0)
    total = (torch.stack(totals) * (maxima - maximum).exp()).sum(0)
    return torch.stack(ids).gather(0, tile[None])[0], maximum + total.log()


class _TargetLogprobs(torch.autograd.Function):
    """The forward computes the gradients for an upstream gradient of 1 on every token; the backward scales them.

    d logp[t] / d logits[t] = onehot(target) - softmax, so dx[t] = (onehot - p) weight and dW = sum_t (onehot - p)'
    x[t]. A loss that is a sum over tokens sends the same upstream gradient g to all of them, so dx * g and dW * g are
    exact without a second look at the logits. For an uneven g (DPO, a weighted loss) the backward recomputes them
    chunk by chunk.
    """

    @staticmethod
    def forward(ctx, x, weight, targets):
        dx, dw = torch.empty_like(x), _zeros_like(weight) if weight.requires_grad else None  # None: a frozen head
        logp = _forward(x, weight, targets, dx, dw)
        ctx.save_for_backward(x, weight, targets, dx, dw)
        return logp

    @staticmethod
    def backward(ctx, g):
        x, weight, targets, dx, dw = ctx.saved_tensors
        if len(g) == 0 or bool((g == g[0]).all()):
            scale = g[0] if len(g) else 1.0
            return (dx * scale).to(x.dtype), None if dw is None else (dw * scale).to(weight.dtype), None
        dx, dw = torch.empty_like(x), None if dw is None else _zeros_like(weight)
        w, buffers = weight.to(x.dtype), _buffers(x, weight)
        for rows in _chunks(len(x), len(weight), x.device):
            _chunk(x[rows], w, targets[rows], g[rows], dx[rows], dw, buffers)
        return dx, None if dw is None else dw.to(weight.dtype), None


def _zeros_like(weight):
    """Memory for its gradient, a float32 sum over chunks."""
    return torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)


def _forward(x, weight, targets, dx, dw):
    """Log-probabilities chunk by chunk; the gradients go into dx and dw unless they are None."""
    logp = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    w, buffers = weight.to(x.dtype), _buffers(x, weight)
    for rows in _chunks(len(x), len(weight), x.device):
        logp[rows] = _chunk(x[rows], w, targets[rows], None, None if dx is None else dx[rows], dw, buffers)
    return logp


def _chunks(n, V, device):
    """Slices of n tokens."""
    rows = 4096 if device.type == "cuda" else max(16, CHUNK // V)
    return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]


def _buffers(x, weight):
    """Memory for one chunk: logits in x's dtype, logits in float32 (the same buffer when x is float32), and their
    softmax.

    Allocated once, because fresh pages cost more than the arithmetic.
    """
    chunks = _chunks(len(x), len(weight), x.device)
    n = chunks[0].stop if chunks else 0

    def buffer(dtype):
        return torch.empty(n, len(weight), dtype=dtype, device=x.device)

    if on_triton(x):  # float32 exists in registers only
        return [buffer(x.dtype)]
    rounded = buffer(x.dtype)
    return [rounded, rounded if x.dtype == torch.float32 else buffer(torch.float32), buffer(torch.float32)]


def _chunk(x, w, targets, g, dx, dw, buffers):
    """Log-probabilities (n,) of one chunk. Unless dx is None, write dx and add to dw for upstream gradient g (None:
    ones).
    """
    if on_triton(x):
        return _triton_chunk(x, w, targets, g, dx, dw, buffers[0][:len(x)])
    rounded, logits, p = (b[:len(x)] for b in buffers)
    torch.mm(x, w.T, out=rounded)
    if logits is not rounded:
        logits.copy_(rounded)  # (n, V)
    torch.softmax(logits, -1, out=p)
    logp = p.gather(1, targets[:, None]).log_()
    tiny = logp[:, 0] < -60  # the probability may have underflowed
    if bool(tiny.any()):
        logp[tiny] = logits[tiny].log_softmax(-1).gather(1, targets[tiny, None])
    if dx is not None:
        p.scatter_add_(1, targets[:, None], torch.full_like(logp, -1.0))  # softmax - onehot: minus the gradient
        rounded.copy_(p if g is None else p.mul_(g[:, None]))
        torch.mm(rounded, w, out=dx)
        dx.neg_()
        if dw is not None:
            dw -= rounded.T @ x
    return logp[:, 0]


def _triton_chunk(x, w, targets, g, dx, dw, logits):
    """The same with the Triton kernel, which overwrites the logits (n, V) with their gradient."""
    torch.mm(x, w.T, out=logits)
    logp = logprobs_of_logits(logits, targets, g, dx is not None)
    if dx is not None:
        torch.mm(logits, w, out=dx)
        if dw is None:
            return logp
        if x.is_cuda and x.dtype != torch.float32:  # bfloat16 factors, a float32 sum
            torch.addmm(dw, logits.T, x, out_dtype=torch.float32, out=dw)
        else:
            dw += logits.T @ x
    return logp
