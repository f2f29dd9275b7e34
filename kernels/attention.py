"""Causal grouped-query attention over packed documents.

The mask is an interval: query t of row b sees key s iff starts[b, t] <= s <= t. `starts` alone says where documents
begin, so shapes never depend on how a row was packed, and causal, padded, packed and cached attention are one function.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from kernels.device import on_triton

TILE = 64  # query positions of a tile on the CPU: 32 to 128 are equally fast there


class Documents(NamedTuple):
    """Where the documents of a batch lie, worked out once per batch and shared by all layers (see `documents`)."""
    starts: torch.Tensor  # (B, T) first visible key of each query
    buckets: list | None  # CPU: per bucket of like lengths an index (N, L) into B*T, padded with B*T; None: no packing
    ends: torch.Tensor | None = None  # Triton: (B, T) int32, one behind the last query that sees each key; starts is int32 then


def documents(starts):
    """starts (B, T) int64, rows of queries over their own keys -> Documents.

    On the CPU the documents are sorted by length and cut into buckets, each of which is one dense causal attention:
    padding at the end of a document is harmless under a causal mask. Work falls from T^2 per row to the sum of the squared
    document lengths.
    """
    B, T = starts.shape
    if on_triton(starts):  # starts rises along a row, so what a key is behind, all later keys are behind
        ends = torch.searchsorted(starts.contiguous(), torch.arange(T, device=starts.device).repeat(B, 1), right=True)
        return Documents(starts.int().contiguous(), None, ends.int())
    if starts.device.type != "cpu" or not bool((starts > 0).any()):
        return Documents(starts, None)
    first = starts == torch.arange(T)  # a document's first token sees only itself
    first[:, 0] = True
    begin = first.flatten().nonzero()[:, 0]
    length = torch.diff(begin, append=torch.tensor([B * T]))
    order = torch.argsort(length, descending=True, stable=True)
    buckets, i = [], 0
    while i < len(order):
        L = int(length[order[i]])
        full = 2 / 3 if L <= 128 else 7 / 8  # what padding wastes grows with L^2
        n = int((length[order[i:]] >= full * L).sum()) if L > 32 else len(order) - i
        rows = order[i:i + n]
        index = begin[rows, None] + torch.arange(L)
        buckets.append(torch.where(torch.arange(L) < length[rows, None], index, B * T))
        i += n
    return Documents(starts, buckets)


def attention(q, k, v, docs):
    """q (B, T, H, D), k and v (B, S, K, D) with H a multiple of K -> (B, T, H, D); softmax(q k' / sqrt(D)) v.

    docs: Documents. With S > T (a KV cache) the queries are the last T of the S positions and docs.starts is (B, T).
    """
    if on_triton(q) and q.shape[-1] in (16, 32, 64, 128):  # what fills the tensor cores' tiles
        return _triton(q, k, v, docs)
    if k.shape[1] != q.shape[1] or q.device.type != "cpu" or docs.ends is not None:  # a KV cache, or an odd head size on a GPU
        return attention_reference(q, k, v, docs.starts)
    if docs.buckets is None:  # one document per row
        return _causal(q, k, v)
    B, T, H, D = q.shape
    qkv = torch.cat([q, k, v], 2).flatten(0, 1)  # (B*T, H+2K, D): one gather instead of three
    qkv = torch.cat([qkv, qkv.new_zeros(1, *qkv.shape[1:])])  # row B*T is what padding reads
    out = q.new_empty(B * T, H, D)
    pieces, places = [], []
    for index in docs.buckets:
        x = qkv[index]  # (N, L, H+2K, D)
        o = _causal(*x.split([H, k.shape[2], k.shape[2]], 2))
        real = index < B * T
        pieces.append(o[real])
        places.append(index[real])
    out = torch.empty_like(out).index_copy(0, torch.cat(places), torch.cat(pieces))
    return out.view(B, T, H, D)


def _triton(q, k, v, docs):
    """The kernels: flash attention over whole rows, split-KV decoding behind a cache."""
    from kernels.decode import decode
    from kernels.flash import flash_attention
    if k.shape[1] == q.shape[1]:
        return flash_attention(q, k, v, docs.starts, docs.ends)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return attention_reference(q, k, v, docs.starts)
    return decode(q, k, v, docs.starts)


def _causal(q, k, v):
    """Dense causal attention, (N, L, H, D). Up to 128 tokens in the textbook form: keeping the softmax costs less than making it
    twice. Longer documents tile by tile; torch's flash kernel takes 1.2 to 2 times as long on a CPU (forward and backward)."""
    N, L, H, D = q.shape
    K = k.shape[2]
    # the H/K query heads of a group follow each other at every position, so that a tile of positions is a tile of rows
    q = (q * D ** -0.5).view(N, L, K, H // K, D).transpose(1, 2).reshape(N * K, -1, D)
    k, v = (x.transpose(1, 2).reshape(N * K, L, D) for x in (k, v))
    if L <= 128:
        o = torch.bmm(torch.softmax(torch.baddbmm(_future(L, H // K, q.dtype), q, k.mT), -1), v)
    else:
        o = _Tiled.apply(q, k, v)
    return o.view(N, K, L, H // K, D).transpose(1, 2).reshape(N, L, H, D)


def _future(n, group, dtype):
    """-inf where a key lies ahead of a query, else 0; (n * group, n)."""
    return torch.full((n, n), float("-inf"), dtype=dtype).triu(1).repeat_interleave(group, 0)


def _softmax(q, k, future):
    """softmax(q k') of one tile; q (P, n * group, D), k (P, S, D), of which the last n positions are the tile's own."""
    scores = torch.bmm(q, k.mT)  # (P, n * group, S)
    scores[:, :, -future.shape[1]:] += future
    return torch.softmax(scores, -1)


class _Tiled(torch.autograd.Function):
    """Causal attention of TILE query positions at a time over the keys up to their end: what lies ahead is never computed, and
    backward makes the softmax of a tile again, so that memory stays O(L). q (P, L * group, D), scaled; k, v (P, L, D).

    With P = softmax(q k') and dP = do v':  dv = P' do,  dS = P * (dP - rowsum(P * dP)),  dq = dS k,  dk = dS' q.
    """

    @staticmethod
    def forward(ctx, q, k, v):
        ctx.save_for_backward(q, k, v)
        o = torch.empty_like(q)
        for rows, end, future in _tiles(q, k):
            o[:, rows] = torch.bmm(_softmax(q[:, rows], k[:, :end], future), v[:, :end])
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx, do):
        q, k, v = ctx.saved_tensors
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(x.shape, dtype=torch.float32) for x in (k, v))  # sums over the tiles
        for rows, end, future in _tiles(q, k):
            p = _softmax(q[:, rows], k[:, :end], future)
            dv[:, :end] += torch.bmm(p.mT, do[:, rows])
            dp = torch.bmm(do[:, rows], v[:, :end].mT)
            ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
            dq[:, rows] = torch.bmm(ds, k[:, :end])
            dk[:, :end] += torch.bmm(ds.mT, q[:, rows])
        return dq, dk.to(k.dtype), dv.to(v.dtype)


def _tiles(q, k):
    """Yield (rows of q, end of the keys they see, mask of their own positions) of every tile."""
    L = k.shape[1]
    group = q.shape[1] // L
    for begin in range(0, L, TILE):
        end = min(begin + TILE, L)
        yield slice(begin * group, end * group), end, _future(end - begin, group, q.dtype)


def attention_reference(q, k, v, starts):
    """The definition, with the mask written out: (T, S) per row. Serves every device and the KV cache."""
    T, S = q.shape[1], k.shape[1]
    position = torch.arange(S - T, S, device=q.device)  # of the queries
    key = torch.arange(S, device=q.device)
    mask = (key <= position[:, None]) & (key >= starts[:, :, None])  # (B, T, S)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], enable_gqa=True)
    return o.transpose(1, 2)
