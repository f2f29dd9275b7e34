"""Attention of a few new queries over a long cache in Triton: the keys are split between programs, then their parts are joined.

A decoding step reads the whole cache once and multiplies next to nothing, so it is as fast as the memory if enough programs
read at a time: B K of them are too few. Each (row, key/value head) is cut into splits; a split keeps the softmax of its own keys,

    acc_i = sum_s exp2(score_s - top_i) v_s,    total_i = sum_s exp2(score_s - top_i),    top_i = max_s score_s

and they are joined exactly: o = sum_i 2^(top_i - top) acc_i / sum_i 2^(top_i - top) total_i (Dao et al., Flash-Decoding, 2023).
The queries of the heads that share a key head, for all T new positions, are the rows of one matrix: each key is read once.

prefix: keys below it are seen by all queries of the row, besides the interval starts .. own position. So many answers stand
behind one context in one row, each blind to the others, and the context is stored and read once.

Bytes in bfloat16: 4 B S K D, the cache. Legend: B rows, T new positions, S cached ones with the new, H query heads, K key/value
heads, G = H / K, D head size, R rows of a product (T G cut into tiles), N keys of a tile.
"""
import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from kernels.device import processors

NEVER = tl.constexpr(-1e30)
LOG2E = 1.4426950408889634


@triton.jit
def split_kernel(q_ptr, k_ptr, v_ptr, starts_ptr, prefix_ptr, acc_ptr, top_ptr, total_ptr, kb, kt, kh, vb, vt, vh,
                 T, S, K, G, span, scale, D: tl.constexpr, R: tl.constexpr, N: tl.constexpr):
    """One program: `span` keys of one row and key head, against R of its T G queries."""
    b, h = tl.program_id(0) // K, tl.program_id(0) % K
    r, n, d = tl.program_id(2) * R + tl.arange(0, R), tl.arange(0, N), tl.arange(0, D)
    t, real = r // G, r < T * G
    q = tl.load(q_ptr + (((b * T + t) * K + h) * G + r % G)[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    start, prefix = tl.load(starts_ptr + b * T + t, mask=real, other=0), tl.load(prefix_ptr + b)
    begin, end = tl.program_id(1) * span, tl.minimum((tl.program_id(1) + 1) * span, S)
    first = tl.min(tl.where(real, start, S), 0) // N * N
    begin = tl.where(prefix > begin, begin, tl.maximum(begin, first))
    k_head = k_ptr + tl.cast(b, tl.int64) * kb + h * kh
    v_head = v_ptr + tl.cast(b, tl.int64) * vb + h * vh
    acc, total = tl.zeros((R, D), tl.float32), tl.zeros((R,), tl.float32)
    top = tl.full((R,), NEVER, tl.float32)
    for n0 in range(begin, end, N):
        key = n0 + n
        k = tl.load(k_head + tl.cast(n0, tl.int64) * kt + n[:, None] * kt + d[None, :], mask=(key < end)[:, None], other=0.0)
        v = tl.load(v_head + tl.cast(n0, tl.int64) * vt + n[:, None] * vt + d[None, :], mask=(key < end)[:, None], other=0.0)
        sees = ((start[:, None] <= key[None, :]) | (key < prefix)[None, :]) & (key[None, :] <= (S - T + t)[:, None])
        sees = sees & (key < end)[None, :]
        score = tl.where(sees, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, NEVER)  # (R, N)
        higher = tl.maximum(top, tl.max(score, 1))
        p = tl.where(sees, tl.exp2(score - higher[:, None]), 0.0)
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        top = higher
    place = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * (T * G) + r
    tl.store(acc_ptr + tl.cast(place, tl.int64)[:, None] * D + d[None, :], acc, mask=real[:, None])
    tl.store(top_ptr + place, top, mask=real)
    tl.store(total_ptr + place, total, mask=real)


@triton.jit
def join_kernel(acc_ptr, top_ptr, total_ptr, o_ptr, T, K, G, SPLITS: tl.constexpr, BLOCK: tl.constexpr, D: tl.constexpr):
    """One program: the splits of one query and head; 0 where it sees no key."""
    r, i, d = tl.program_id(1), tl.arange(0, BLOCK), tl.arange(0, D)
    b, h = tl.program_id(0) // K, tl.program_id(0) % K
    place = (tl.program_id(0) * SPLITS + i) * (T * G) + r
    tops = tl.load(top_ptr + place, mask=i < SPLITS, other=NEVER)
    weight = tl.exp2(tops - tl.max(tops, 0))
    total = tl.sum(weight * tl.load(total_ptr + place, mask=i < SPLITS, other=0.0), 0)
    parts = tl.load(acc_ptr + tl.cast(place, tl.int64)[:, None] * D + d[None, :], mask=(i < SPLITS)[:, None], other=0.0)
    o = tl.sum(weight[:, None] * parts, 0) / tl.where(total > 0, total, 1.0)
    out = ((b * T + r // G) * K + h) * G + r % G
    tl.store(o_ptr + tl.cast(out, tl.int64) * D + d, o.to(o_ptr.dtype.element_ty))


def decode(q, k, v, starts, prefix=None, splits=None):
    """q (B, T, H, D), the last T of S positions; k and v (B, S, K, D), views of a cache -> (B, T, H, D), without gradients.

    starts (B, T) and prefix (B,): query t sees the keys below prefix and those from starts[t] to itself. splits: None chooses.
    """
    (B, T, H, D), S, K = q.shape, k.shape[1], k.shape[2]
    rows, G = T * (H // K), H // K
    R, N = min(64, max(16, triton.next_power_of_2(rows))), 64 if q.element_size() < 4 else 32
    tiles = triton.cdiv(rows, R)
    if splits is None:  # two programs for each processor, none for fewer than 256 keys
        splits = max(1, min(triton.cdiv(2 * processors(q.device), B * K * tiles), triton.cdiv(S, 256), 64))
    span = triton.cdiv(triton.cdiv(S, splits), N) * N
    starts = starts.to(torch.int32).expand(B, T).contiguous()
    prefix = starts.new_zeros(B) if prefix is None else prefix.to(torch.int32)
    acc = torch.empty(B * K, splits, rows, D, dtype=torch.float32, device=q.device)
    top, total = torch.empty_like(acc[..., 0]), torch.empty_like(acc[..., 0])
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    split_kernel[(B * K, splits, tiles)](q.contiguous(), k, v, starts, prefix, acc, top, total, *k.stride()[:3], *v.stride()[:3],
                                         T, S, K, G, span, D ** -0.5 * LOG2E, D, R, N, num_warps=4, num_stages=2)
    join_kernel[(B * K, rows)](acc, top, total, o, T, K, G, splits, triton.next_power_of_2(splits), D)
    return o


def decode_reference(q, k, v, starts, prefix=None):
    """The definition."""
    T, S = q.shape[1], k.shape[1]
    key, position = torch.arange(S, device=q.device), torch.arange(S - T, S, device=q.device)
    mask = key >= starts[:, :, None]  # (B, T, S)
    if prefix is not None:
        mask = mask | (key < prefix[:, None, None])
    mask = mask & (key <= position[:, None])
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], enable_gqa=True).transpose(1, 2)
