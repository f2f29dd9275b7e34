"""Attention of a few new queries over a long KV cache in Triton, split over the keys.

A decoding step reads the whole cache once and computes almost nothing, so it runs at memory bandwidth if enough
programs read at the same time; B K programs are too few. The keys of each (row, key/value head) are split, and each
split computes the softmax of its own keys:

    acc_i = sum_s exp2(score_s - max_i) v_s,    total_i = sum_s exp2(score_s - max_i),    max_i = max_s score_s

They combine exactly: o = sum_i 2^(max_i - max) acc_i / sum_i 2^(max_i - max) total_i (Dao et al., Flash-Decoding,
2023). The queries of all heads that share a key head, at all T new positions, are the rows of one matrix: each key is
read once.

prefix: keys below it are visible to all queries of the row, in addition to the interval from starts to the query
itself. Many answers to one context thus share a row without seeing each other, and the context is stored and read
once.

Bytes read in bfloat16: 4 B S K D, the cache. Legend: B rows, T new positions, S cached positions including the new
ones, H query heads, K key/value heads, G = H / K, D head size, R rows of a matrix product (a tile of T G), N keys of a
tile.
"""
import torch
import triton
import triton.language as tl

from kernels.device import num_sms

MASKED_SCORE = tl.constexpr(-1e30)
LOG2E = 1.4426950408889634


@triton.jit
def split_kernel(q_ptr, k_ptr, v_ptr, starts_ptr, prefix_ptr, acc_ptr, max_ptr, total_ptr, kb, kt, kh, vb, vt, vh,
                 T, S, K, G, span, scale, D: tl.constexpr, R: tl.constexpr, N: tl.constexpr):
    """One program: `span` keys of one row and key/value head, for R of its T G queries."""
    b, h = tl.program_id(0) // K, tl.program_id(0) % K
    r, n, d = tl.program_id(2) * R + tl.arange(0, R), tl.arange(0, N), tl.arange(0, D)
    t, valid = r // G, r < T * G
    q = tl.load(q_ptr + (((b * T + t) * K + h) * G + r % G)[:, None] * D + d[None, :], mask=valid[:, None], other=0.0)
    start, prefix = tl.load(starts_ptr + b * T + t, mask=valid, other=0), tl.load(prefix_ptr + b)
    begin, end = tl.program_id(1) * span, tl.minimum((tl.program_id(1) + 1) * span, S)
    first = tl.min(tl.where(valid, start, S), 0) // N * N
    begin = tl.where(prefix > begin, begin, tl.maximum(begin, first))
    k_head = k_ptr + tl.cast(b, tl.int64) * kb + h * kh
    v_head = v_ptr + tl.cast(b, tl.int64) * vb + h * vh
    acc, total = tl.zeros((R, D), tl.float32), tl.zeros((R,), tl.float32)
    maximum = tl.full((R,), MASKED_SCORE, tl.float32)
    for n0 in range(begin, end, N):
        key = n0 + n
        in_range, first_row = (key < end)[:, None], tl.cast(n0, tl.int64)
        k = tl.load(k_head + first_row * kt + n[:, None] * kt + d[None, :], mask=in_range, other=0.0)
        v = tl.load(v_head + first_row * vt + n[:, None] * vt + d[None, :], mask=in_range, other=0.0)
        visible = ((start[:, None] <= key[None, :]) | (key < prefix)[None, :]) & (key[None, :] <= (S - T + t)[:, None])
        visible = visible & (key < end)[None, :]
        score = tl.where(visible, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, MASKED_SCORE)  # (R, N)
        new_max = tl.maximum(maximum, tl.max(score, 1))
        p = tl.where(visible, tl.exp2(score - new_max[:, None]), 0.0)
        rescale = tl.exp2(maximum - new_max)
        total = total * rescale + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None], input_precision="ieee")
        maximum = new_max
    offset = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * (T * G) + r
    tl.store(acc_ptr + tl.cast(offset, tl.int64)[:, None] * D + d[None, :], acc, mask=valid[:, None])
    tl.store(max_ptr + offset, maximum, mask=valid)
    tl.store(total_ptr + offset, total, mask=valid)


@triton.jit
def combine_kernel(acc_ptr, max_ptr, total_ptr, o_ptr, T, K, G,
                   SPLITS: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr):
    """One program: combine the splits of one query and head; 0 where it has no key."""
    r, i, d = tl.program_id(1), tl.arange(0, BLOCK), tl.arange(0, D)
    b, h = tl.program_id(0) // K, tl.program_id(0) % K
    offset = (tl.program_id(0) * SPLITS + i) * (T * G) + r
    maxima = tl.load(max_ptr + offset, mask=i < SPLITS, other=MASKED_SCORE)
    weight = tl.exp2(maxima - tl.max(maxima, 0))
    total = tl.sum(weight * tl.load(total_ptr + offset, mask=i < SPLITS, other=0.0), 0)
    rows = acc_ptr + tl.cast(offset, tl.int64)[:, None] * D + d[None, :]
    parts = tl.load(rows, mask=(i < SPLITS)[:, None], other=0.0)
    o = tl.sum(weight[:, None] * parts, 0) / tl.where(total > 0, total, 1.0)
    out = ((b * T + r // G) * K + h) * G + r % G
    tl.store(o_ptr + tl.cast(out, tl.int64) * D + d, o.to(o_ptr.dtype.element_ty))


def decode(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, prefix: torch.Tensor | None = None,
           splits: int | None = None) -> torch.Tensor:
    """q (B, T, H, D), the last T of S positions; k and v (B, S, K, D), views of a cache -> (B, T, H, D), without
    gradients.

    starts (B, T), prefix (B,): query t attends to the keys below prefix and to those from starts[t] to itself. splits:
    parts that the keys are split into (None: chosen from the sizes).
    """
    (B, T, H, D), S, K = q.shape, k.shape[1], k.shape[2]
    rows, G = T * (H // K), H // K
    R, N = min(64, max(16, triton.next_power_of_2(rows))), 64 if q.element_size() < 4 else 32
    tiles = triton.cdiv(rows, R)
    if splits is None:  # two programs per multiprocessor, at least 256 keys each
        splits = max(1, min(triton.cdiv(2 * num_sms(q.device), B * K * tiles), triton.cdiv(S, 256), 64))
    span = triton.cdiv(triton.cdiv(S, splits), N) * N
    starts = starts.to(torch.int32).expand(B, T).contiguous()
    prefix = starts.new_zeros(B) if prefix is None else prefix.to(torch.int32)
    acc = torch.empty(B * K, splits, rows, D, dtype=torch.float32, device=q.device)
    maximum, total = torch.empty_like(acc[..., 0]), torch.empty_like(acc[..., 0])
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    split_kernel[(B * K, splits, tiles)](q.contiguous(), k, v, starts, prefix, acc, maximum, total,
                                         *k.stride()[:3], *v.stride()[:3], T, S, K, G, span, D ** -0.5 * LOG2E,
                                         D, R, N, num_warps=4, num_stages=2)
    combine_kernel[(B * K, rows)](acc, maximum, total, o, T, K, G, splits, triton.next_power_of_2(splits), D)
    return o
