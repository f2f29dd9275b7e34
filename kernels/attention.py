"""Causal grouped-query attention over packed documents.

The mask is an interval: query t of row b attends to key s iff starts[b, t] <= s <= t. `starts` alone says where
documents begin, so shapes never depend on how a row was packed; causal, padded, packed and cached attention are one
function. The softmax sums in float32 whatever the dtype; the kernels in Triton also keep its scores in float32, the CPU
rounds scores and probabilities to the input's dtype.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.device import TRITON, on_triton

if TRITON:
    from kernels.attention_triton import flash_attention
    from kernels.decode_triton import decode

TILE = 64       # query positions of a tile on the CPU; 32 to 128 are equally fast
MAX_DENSE = 128  # longest document whose whole score matrix is kept for the backward


class DocumentMask(NamedTuple):
    """Where the documents of a batch are; computed once per batch and shared by all layers (see `document_mask`)."""
    starts: Tensor  # (B, T) first visible key of each query; int32 on Triton
    buckets: list[Tensor] | None  # CPU: for each bucket of similar lengths, positions (N, L) in B*T, padded with B*T
    ends: Tensor | None = None  # Triton: (B, T) int32, one past the last query that attends to each key


def document_mask(starts: Tensor) -> DocumentMask:
    """starts (B, T) int64 -> what `attention` needs to know about the documents of these rows.

    On the CPU, documents are sorted by length and cut into buckets, each of which is one dense causal attention.
    Padding at the end of a document is harmless under a causal mask. Work falls from T^2 per row to the sum of squared
    document lengths.
    """
    B, T = starts.shape
    if on_triton(starts):  # starts rises along a row, so a query that is past a key's document stays past it
        queries = torch.arange(T, device=starts.device).repeat(B, 1)
        ends = torch.searchsorted(starts.contiguous(), queries, right=True)
        return DocumentMask(starts.int().contiguous(), None, ends.int())
    if starts.device.type != "cpu" or not bool((starts > 0).any()):
        return DocumentMask(starts, None)
    is_first = starts == torch.arange(T)  # a document's first token attends only to itself
    is_first[:, 0] = True
    begin = is_first.flatten().nonzero()[:, 0]
    length = torch.diff(begin, append=torch.tensor([B * T]))
    order = torch.argsort(length, descending=True, stable=True)
    buckets, i = [], 0
    while i < len(order):
        L = int(length[order[i]])
        least_fill = 2 / 3 if L <= 128 else 7 / 8  # the cost of padding grows with L^2
        n = int((length[order[i:]] >= least_fill * L).sum()) if L > 32 else len(order) - i
        members = order[i:i + n]
        index = begin[members, None] + torch.arange(L)
        buckets.append(torch.where(torch.arange(L) < length[members, None], index, B * T))
        i += n
    return DocumentMask(starts, buckets)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: DocumentMask) -> Tensor:
    """softmax(q k' / sqrt(D)) v over the keys that the mask allows.

    q (B, T, H, D), k and v (B, S, K, D), H a multiple of K -> (B, T, H, D). With S > T (a KV cache) the queries are
    the last T of the S positions.
    """
    T, S, D = q.shape[1], k.shape[1], q.shape[-1]
    if on_triton(q) and D in (16, 32, 64, 128):  # head sizes that fill the tensor cores' tiles
        if S == T and mask.ends is not None:
            return flash_attention(q, k, v, mask.starts, mask.ends)
        if not (torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))):
            return decode(q, k, v, mask.starts)
    if S != T or q.device.type != "cpu" or mask.ends is not None:  # a KV cache, or a GPU without a kernel for D
        return attention_reference(q, k, v, mask.starts)
    buckets = mask.buckets or [torch.arange(q.shape[0] * T).view(-1, T)]  # one document per row
    return _PackedAttention.apply(q, k, v, buckets)


# ---------------------------------------------------------------------- CPU

class _PackedAttention(torch.autograd.Function):
    """Causal attention of the documents in each bucket, with few passes over memory.

    Every position is in exactly one bucket, so gradients are written and never added up. Padding reads and writes an
    extra position B*T, which is zero. With P = softmax(q k' / sqrt(D)) and dP = do v':

        dv = P' do,  dS = P * (dP - rowsum(P * dP)),  dq = dS k / sqrt(D),  dk = dS' q / sqrt(D)
    """

    @staticmethod
    def forward(ctx, q, k, v, buckets):
        (B, T, H, D), K = q.shape, k.shape[2]
        q_rows, k_rows, v_rows = _rows(q * D ** -0.5), _rows(k), _rows(v)
        out, saved = torch.empty_like(q_rows), []
        for positions in buckets:
            q_index, k_index = _head_rows(positions, H, K, B * T)
            bucket = _gather(q_rows, q_index), _gather(k_rows, k_index), _gather(v_rows, k_index)
            o, p = _attend(*bucket, positions.shape[1])
            _scatter(out, q_index, o)
            saved += [q_index, k_index, *bucket, p]
        ctx.save_for_backward(*saved)
        ctx.K, ctx.lengths = K, [positions.shape[1] for positions in buckets]
        return out[:-H].view(B, T, H, D)

    @staticmethod
    @once_differentiable
    def backward(ctx, do):
        (B, T, H, D), K = do.shape, ctx.K
        do = _rows(do)
        dq, dk, dv = (do.new_empty((B * T + 1) * heads, D) for heads in (H, K, K))
        for i, L in enumerate(ctx.lengths):
            q_index, k_index, q, k, v, p = ctx.saved_tensors[6 * i:6 * i + 6]
            dq_bucket, dk_bucket, dv_bucket = _attend_backward(q, k, v, p, _gather(do, q_index), L)
            _scatter(dq, q_index, dq_bucket)
            _scatter(dk, k_index, dk_bucket)
            _scatter(dv, k_index, dv_bucket)
        dq = dq[:-H].view(B, T, H, D) * D ** -0.5
        return dq, dk[:-K].view(B, T, K, D), dv[:-K].view(B, T, K, D), None


def _rows(x):
    """(B, T, heads, D) -> (B*T*heads + heads, D); the last position is zero."""
    return torch.cat([x.flatten(0, 1), x.new_zeros(1, *x.shape[2:])]).flatten(0, 1)


def _gather(rows, index):
    return rows.index_select(0, index.flatten()).view(*index.shape, -1)


def _scatter(rows, index, values):
    rows.index_copy_(0, index.flatten(), values.flatten(0, 1))


def _head_rows(positions, H, K, padding):
    """positions (N, L) in B*T -> rows of q, (N*K, L*G), and of k and v, (N*K, S); the G = H / K heads of a group are
    adjacent.

    S is L rounded up to a multiple of 32: softmax takes twice as long on rows of other lengths.
    """
    N, L = positions.shape
    q_index = positions[:, None, :, None] * H + torch.arange(H).view(K, 1, H // K)  # (N, K, L, G)
    keys = F.pad(positions, (0, -L % 32), value=padding)
    k_index = keys[:, None] * K + torch.arange(K)[:, None]  # (N, K, S)
    return q_index.view(N * K, -1), k_index.view(N * K, -1)


def _attend(q, k, v, L):
    """q (P, L*G, D), scaled, k and v (P, S, D) -> (o (P, L*G, D), its softmax).

    A document above MAX_DENSE goes tile by tile and keeps no softmax: keys ahead of a tile are never computed, and
    memory stays O(L). torch's flash kernel takes 1.2 to 2 times as long on a CPU (forward and backward).
    """
    if L <= MAX_DENSE:
        p = _tile_softmax(q, k, 0, q.shape[1] // L)
        return torch.bmm(p, v), p
    o = torch.empty_like(q)
    for begin, rows, keys in _tiles(q, k, L):
        o[:, rows] = torch.bmm(_tile_softmax(q[:, rows], k[:, keys], begin, q.shape[1] // L), v[:, keys])
    return o, q.new_empty(0)


def _attend_backward(q, k, v, p, do, L):
    """Gradients of q, k and v; the softmax of a tile is computed again."""
    if L <= MAX_DENSE:
        return _tile_backward(q, k, v, p, do)
    dq = torch.empty_like(q)
    dk, dv = (torch.zeros(x.shape, dtype=torch.float32) for x in (k, v))  # sums over the tiles
    for begin, rows, keys in _tiles(q, k, L):
        p = _tile_softmax(q[:, rows], k[:, keys], begin, q.shape[1] // L)
        dq[:, rows], dk_tile, dv_tile = _tile_backward(q[:, rows], k[:, keys], v[:, keys], p, do[:, rows])
        dk[:, keys] += dk_tile
        dv[:, keys] += dv_tile
    return dq, dk.to(k.dtype), dv.to(v.dtype)


def _tiles(q, k, L):
    """Yield (first position, rows of q, keys that they attend to) of every tile."""
    G = q.shape[1] // L
    for begin in range(0, L, TILE):
        yield begin, slice(begin * G, (begin + TILE) * G), slice(0, min(begin + TILE, k.shape[1]))


def _tile_softmax(q, k, begin, G):
    """softmax(q k') of the queries (P, n*G, D) from position `begin` on, over the keys (P, end, D)."""
    scores = torch.bmm(q, k.mT)  # (P, n*G, end)
    future = torch.full((q.shape[1] // G, k.shape[1] - begin), float("-inf"), dtype=q.dtype).triu(1)
    scores[:, :, begin:].add_(future.repeat_interleave(G, 0))
    return torch.softmax(scores, -1)


def _tile_backward(q, k, v, p, do):
    dp = torch.bmm(do, v.mT)
    ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
    return torch.bmm(ds, k), torch.bmm(ds.mT, q), torch.bmm(p.mT, do)


# ---------------------------------------------------------------------- any device

def attention_reference(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, prefix: Tensor | None = None) -> Tensor:
    """The definition, with the mask written out: (B, T, S). Also the path of a KV cache on the CPU.

    prefix (B,): keys below it are visible to all queries of their row.
    """
    T, S = q.shape[1], k.shape[1]
    query = torch.arange(S - T, S, device=q.device)[:, None]  # positions of the queries
    key = torch.arange(S, device=q.device)
    mask = key >= starts[:, :, None]  # (B, T, S)
    if prefix is not None:
        mask = mask | (key < prefix[:, None, None])
    mask = mask & (key <= query)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], enable_gqa=True)
    return o.transpose(1, 2)
