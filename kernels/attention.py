"""Causal grouped-query attention over packed documents.

The mask is an interval: query t of row b attends to key s iff starts[b, t] <= s <= t. `starts` alone says where
documents begin, so shapes never depend on how a row was packed; causal, padded, packed and cached attention are one
function.
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
    if mask.buckets is None:
        return _causal(q, k, v)
    return _bucketed(q, k, v, mask.buckets)


def _bucketed(q, k, v, buckets):
    """Packed documents on the CPU: gather each bucket, attend, scatter back."""
    (B, T, H, D), K = q.shape, k.shape[2]
    qkv = torch.cat([q, k, v], 2).flatten(0, 1)  # (B*T, H+2K, D): one gather instead of three
    qkv = torch.cat([qkv, qkv.new_zeros(1, *qkv.shape[1:])])  # padding reads row B*T
    outputs, positions = [], []
    for index in buckets:
        o = _causal(*qkv[index].split([H, K, K], 2))  # (N, L, H, D)
        is_real = index < B * T
        outputs.append(o[is_real])
        positions.append(index[is_real])
    out = q.new_empty(B * T, H, D)
    return out.index_copy(0, torch.cat(positions), torch.cat(outputs)).view(B, T, H, D)


def _causal(q, k, v):
    """Dense causal attention on the CPU, (N, L, H, D).

    Up to MAX_DENSE tokens in the textbook form: saving the softmax costs less than computing it twice. Longer
    documents go tile by tile; torch's flash kernel takes 1.2 to 2 times as long on a CPU (forward and backward).
    """
    N, L, H, D = q.shape
    K = k.shape[2]
    # the H/K query heads of a group are adjacent at every position, so that a tile of positions is a tile of rows
    q = (q * D ** -0.5).view(N, L, K, H // K, D).transpose(1, 2).reshape(N * K, -1, D)  # (N*K, L*H/K, D)
    k, v = (x.transpose(1, 2).reshape(N * K, L, D) for x in (k, v))
    if L <= MAX_DENSE:
        scores = torch.baddbmm(_causal_bias(L, H // K, q.dtype), q, k.mT)
        o = torch.bmm(torch.softmax(scores, -1), v)
    else:
        o = _Tiled.apply(q, k, v)
    return o.view(N, K, L, H // K, D).transpose(1, 2).reshape(N, L, H, D)


def _causal_bias(n, group, dtype):
    """-inf where a key is ahead of a query, else 0; (n * group, n)."""
    return torch.full((n, n), float("-inf"), dtype=dtype).triu(1).repeat_interleave(group, 0)


def _tile_softmax(q, k, bias):
    """softmax(q k') of one tile. q (P, n * group, D), k (P, S, D); its last n positions are those of the queries."""
    scores = torch.bmm(q, k.mT)  # (P, n * group, S)
    scores[:, :, -bias.shape[1]:] += bias
    return torch.softmax(scores, -1)


class _Tiled(torch.autograd.Function):
    """Causal attention on the CPU, TILE query positions at a time over the keys up to their end.

    Keys ahead of a tile are never computed, and the backward recomputes each tile's softmax: memory stays O(L).
    q (P, L * group, D), scaled; k, v (P, L, D). With P = softmax(q k') and dP = do v':

        dv = P' do,  dS = P * (dP - rowsum(P * dP)),  dq = dS k,  dk = dS' q
    """

    @staticmethod
    def forward(ctx, q, k, v):
        ctx.save_for_backward(q, k, v)
        o = torch.empty_like(q)
        for rows, end, bias in _tiles(q, k):
            o[:, rows] = torch.bmm(_tile_softmax(q[:, rows], k[:, :end], bias), v[:, :end])
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx, do):
        q, k, v = ctx.saved_tensors
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(x.shape, dtype=torch.float32) for x in (k, v))  # sums over the tiles
        for rows, end, bias in _tiles(q, k):
            p = _tile_softmax(q[:, rows], k[:, :end], bias)
            dv[:, :end] += torch.bmm(p.mT, do[:, rows])
            dp = torch.bmm(do[:, rows], v[:, :end].mT)
            ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
            dq[:, rows] = torch.bmm(ds, k[:, :end])
            dk[:, :end] += torch.bmm(ds.mT, q[:, rows])
        return dq, dk.to(k.dtype), dv.to(v.dtype)


def _tiles(q, k):
    """Yield (rows of q, end of the keys they attend to, bias of their own positions) of every tile."""
    L = k.shape[1]
    group = q.shape[1] // L
    for begin in range(0, L, TILE):
        end = min(begin + TILE, L)
        yield slice(begin * group, end * group), end, _causal_bias(end - begin, group, q.dtype)


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
