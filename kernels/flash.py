"""Flash attention over packed documents in Triton: forward and backward, explained at the blackboard in README.md.

Query t of a row sees the keys starts[t] .. t; key s is seen by the queries s .. ends[s]-1. Both arrays rise along the row, so two
numbers bound the keys of a whole tile of queries (and two the queries of a tile of keys): tiles of other documents are never
visited, and of the visited ones only those that a border crosses are masked:

    queries m0..m1     keys [starts[m0] .. starts[m1])   [starts[m1] .. m0]   (m0 .. m1]
                            masked                        not masked           masked

Three loops, not one with an `if`: a branch in the loop's body stops Triton from loading the next tile while it multiplies this one.

Scores live in log2 units (exp2 is one instruction); the forward keeps one float32 per query and head, the log-sum-exp, from which
the backward recomputes the probabilities p = exp2(score - lse):

    dv[s] = sum_t p[t,s] do[t]      ds[t,s] = p[t,s] (do[t] . v[s] - delta[t]),  delta[t] = do[t] . o[t]
    dk[s] = sum_t ds[t,s] q[t] / sqrt(D)            dq[t] = sum_s ds[t,s] k[s] / sqrt(D)

(Dao, FlashAttention-2, 2023, algorithms 1 and 2.) dk and dv of a tile of keys belong to one program, which also sums the queries
of the group's heads, and dq of a tile of queries to another: scores are computed twice, but nothing is added from two sides, so
every run gives the same bits.

Legend: B rows, T positions, H query heads, K key/value heads, G = H / K, D head size, M and N queries and keys in a tile.
"""
import torch
import triton
import triton.language as tl

from kernels.device import generation

# (M, N, warps, stages) of the forward, of dk and dv, of dq: no register spills, and shared memory fits
# (tests/test_kernels_compiled.py). "float32" is for checking and for small models: it multiplies without tensor cores.
TILES = {
    "ampere": {64: ((128, 64, 8, 3), (64, 128, 8, 2), (128, 64, 8, 2)), 128: ((128, 64, 8, 3), (64, 64, 8, 2), (128, 64, 8, 2))},
    "hopper": {64: ((128, 128, 8, 2), (64, 128, 8, 2), (128, 64, 8, 3)), 128: ((128, 128, 8, 2), (64, 64, 8, 2), (128, 64, 8, 3))},
    "blackwell": {64: ((128, 64, 8, 3), (64, 128, 8, 2), (128, 64, 8, 2)), 128: ((128, 64, 8, 3), (64, 64, 8, 2), (128, 64, 8, 2))},
    "small": {64: ((128, 64, 8, 2), (64, 64, 8, 2), (128, 64, 8, 2)), 128: ((128, 32, 8, 2), (32, 64, 8, 2), (64, 32, 8, 2))},
    "float32": {64: ((32, 32, 4, 1),) * 3, 128: ((32, 32, 8, 1),) * 3},
    "cpu": {64: ((32, 16, 4, 1), (16, 32, 4, 1), (32, 16, 4, 1)), 128: ((16, 32, 4, 1), (32, 16, 4, 1), (16, 32, 4, 1))},
}
LOG2E = 1.4426950408889634
NEVER = tl.constexpr(-1e30)  # the score of what is masked; -inf would make nan of a query whose first tile is masked whole


def tiles(x):
    """The three tiles for x (..., D)."""
    table = generation(x.device)
    if table != "cpu" and x.dtype == torch.float32:
        table = "float32"
    return TILES[table][64 if x.shape[-1] <= 64 else 128]


def supported(q):
    """Head sizes that fill a tile: powers of two from the tensor core's 16 to 128."""
    return q.shape[-1] in (16, 32, 64, 128)


# ---------------------------------------------------------------------- forward

@triton.jit
def _key_phases(starts, m0, T, M: tl.constexpr, N: tl.constexpr):
    """Keys that the queries m0 .. m0+M-1 see: (first, end of the masked, end of the unmasked, end), all but the last N apart."""
    first, latest = tl.load(starts + m0), tl.load(starts + tl.minimum(m0 + M, T) - 1)
    masked = first + tl.cdiv(tl.maximum(latest - first, 0), N) * N
    unmasked = masked + tl.maximum(m0 + 1 - masked, 0) // N * N
    return first, masked, unmasked, tl.minimum(m0 + M, T)


@triton.jit
def _forward_phase(acc, total, top, q, k_ptr, v_ptr, k_stride, v_stride, start, query, begin, end, T, scale,
                   N: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr):
    """Keys begin .. end-1 into acc (M, D), the running sum of p v; total (M,), of p; top (M,), the highest score so far."""
    n, d = tl.arange(0, N), tl.arange(0, D)
    for n0 in range(begin, end, N):
        key = n0 + n
        k_tile = k_ptr + tl.cast(n0, tl.int64) * k_stride + n[None, :] * k_stride + d[:, None]
        v_tile = v_ptr + tl.cast(n0, tl.int64) * v_stride + n[:, None] * v_stride + d[None, :]
        k = tl.load(k_tile, mask=key[None, :] < T, other=0.0) if MASKED else tl.load(k_tile)  # (D, N)
        score = tl.dot(q, k, input_precision="ieee")  # (M, N)
        if MASKED:
            score = tl.where((start[:, None] <= key[None, :]) & (key[None, :] <= query[:, None]), score, NEVER)
        higher = tl.maximum(top, tl.max(score, 1) * scale)
        p = tl.exp2(score * scale - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(v_tile, mask=key[:, None] < T, other=0.0) if MASKED else tl.load(v_tile)  # (N, D)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        top = higher
    return acc, total, top


@triton.jit
def forward_kernel(q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, starts_ptr, qb, qt, qh, kb, kt, kh, vb, vt, vh, T, G, scale,
                   D: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """One program: M queries of one head. Heads of a group run side by side, sharing keys in the L2 cache; late tiles first."""
    h, H, b = tl.program_id(0), tl.num_programs(0), tl.program_id(2).to(tl.int64)
    m0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    m, d = tl.arange(0, M), tl.arange(0, D)
    query = m0 + m
    starts = starts_ptr + b * T
    start = tl.load(starts + query, mask=query < T, other=0)
    q = tl.load(q_ptr + b * qb + tl.cast(m0, tl.int64) * qt + h * qh + m[:, None] * qt + d[None, :],
                mask=query[:, None] < T, other=0.0)
    k_head, v_head = k_ptr + b * kb + h // G * kh, v_ptr + b * vb + h // G * vh
    acc, total = tl.zeros((M, D), tl.float32), tl.zeros((M,), tl.float32)
    top = tl.full((M,), NEVER, tl.float32)

    first, masked, unmasked, last = _key_phases(starts, m0, T, M, N)
    acc, total, top = _forward_phase(acc, total, top, q, k_head, v_head, kt, vt, start, query, first, masked, T, scale, N, D, True)
    acc, total, top = _forward_phase(acc, total, top, q, k_head, v_head, kt, vt, start, query, masked, unmasked, T, scale, N, D, False)
    acc, total, top = _forward_phase(acc, total, top, q, k_head, v_head, kt, vt, start, query, unmasked, last, T, scale, N, D, True)

    sees = start <= query  # false for padding on the left, whose output is 0
    o = tl.where(sees[:, None], acc / total[:, None], 0.0)
    o_tile = o_ptr + ((b * T + m0) * H + h) * D + m[:, None] * (H * D) + d[None, :]
    tl.store(o_tile, o.to(o_ptr.dtype.element_ty), mask=query[:, None] < T)
    tl.store(lse_ptr + (b * H + h) * T + query, tl.where(sees, top + tl.log2(total), 0.0), mask=query < T)


# ---------------------------------------------------------------------- backward

@triton.jit
def delta_kernel(o_ptr, do_ptr, delta_ptr, T, H, D: tl.constexpr, M: tl.constexpr):
    """delta = do . o of M queries of one head, float32."""
    h, m0, b = tl.program_id(0), tl.program_id(1) * M, tl.program_id(2).to(tl.int64)
    query = m0 + tl.arange(0, M)
    place = ((b * T + query) * H + h)[:, None] * D + tl.arange(0, D)[None, :]
    o = tl.load(o_ptr + place, mask=query[:, None] < T, other=0.0).to(tl.float32)
    do = tl.load(do_ptr + place, mask=query[:, None] < T, other=0.0).to(tl.float32)
    tl.store(delta_ptr + (b * H + h) * T + query, tl.sum(o * do, 1), mask=query < T)


@triton.jit
def _dkdv_phase(dk, dv, k, v, q_ptr, do_ptr, lse_ptr, delta_ptr, q_stride, do_stride, key, seen_until, begin, end, T, scale,
                M: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr):
    """Queries begin .. end-1 of one head into dk and dv (N, D); everything is transposed, keys down and queries across."""
    m, d = tl.arange(0, M), tl.arange(0, D)
    for m0 in range(begin, end, M):
        query = m0 + m
        q_tile = q_ptr + tl.cast(m0, tl.int64) * q_stride + m[:, None] * q_stride + d[None, :]
        do_tile = do_ptr + tl.cast(m0, tl.int64) * do_stride + m[:, None] * do_stride + d[None, :]
        if MASKED:
            real = query < T
            q, do = tl.load(q_tile, mask=real[:, None], other=0.0), tl.load(do_tile, mask=real[:, None], other=0.0)
            lse, delta = tl.load(lse_ptr + query, mask=real, other=0.0), tl.load(delta_ptr + query, mask=real, other=0.0)
        else:
            q, do, lse, delta = tl.load(q_tile), tl.load(do_tile), tl.load(lse_ptr + query), tl.load(delta_ptr + query)
        p = tl.exp2(tl.dot(k, tl.trans(q), input_precision="ieee") * scale - lse[None, :])  # (N, M)
        if MASKED:
            p = tl.where((key[:, None] <= query[None, :]) & (query[None, :] < seen_until[:, None]), p, 0.0)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
        ds = p * (tl.dot(v, tl.trans(do), input_precision="ieee") - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def dkdv_kernel(q_ptr, k_ptr, v_ptr, do_ptr, dk_ptr, dv_ptr, lse_ptr, delta_ptr, ends_ptr,
                qb, qt, qh, kb, kt, kh, vb, vt, vh, T, G, scale, root, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """One program: N keys of one key/value head, against the queries of the G heads that share it."""
    h, K, n0, b = tl.program_id(0), tl.num_programs(0), tl.program_id(1) * N, tl.program_id(2).to(tl.int64)
    n, d = tl.arange(0, N), tl.arange(0, D)
    key = n0 + n
    ends = ends_ptr + b * T
    seen_until = tl.load(ends + key, mask=key < T, other=0)
    k = tl.load(k_ptr + b * kb + tl.cast(n0, tl.int64) * kt + h * kh + n[:, None] * kt + d[None, :], mask=key[:, None] < T, other=0.0)
    v = tl.load(v_ptr + b * vb + tl.cast(n0, tl.int64) * vt + h * vh + n[:, None] * vt + d[None, :], mask=key[:, None] < T, other=0.0)
    dk, dv = tl.zeros((N, D), tl.float32), tl.zeros((N, D), tl.float32)

    whole, last = tl.load(ends + n0), tl.load(ends + tl.minimum(n0 + N, T) - 1)  # queries below `whole` that see key n0 + N - 1 see all
    masked = n0 + tl.cdiv(N - 1, M) * M  # the diagonal
    unmasked = masked + tl.maximum(whole - masked, 0) // M * M
    H = K * G
    for head in range(h * G, h * G + G):
        q_head, do_head = q_ptr + b * qb + head * qh, do_ptr + (b * T * H + head) * D
        lse, delta = lse_ptr + (b * H + head) * T, delta_ptr + (b * H + head) * T
        dk, dv = _dkdv_phase(dk, dv, k, v, q_head, do_head, lse, delta, qt, H * D, key, seen_until, n0, tl.minimum(masked, last),
                             T, scale, M, D, True)
        dk, dv = _dkdv_phase(dk, dv, k, v, q_head, do_head, lse, delta, qt, H * D, key, seen_until, masked, unmasked,
                             T, scale, M, D, False)
        dk, dv = _dkdv_phase(dk, dv, k, v, q_head, do_head, lse, delta, qt, H * D, key, seen_until, unmasked, last,
                             T, scale, M, D, True)

    tile = ((b * T + n0) * K + h) * D + n[:, None] * (K * D) + d[None, :]
    tl.store(dk_ptr + tile, (dk * root).to(dk_ptr.dtype.element_ty), mask=key[:, None] < T)
    tl.store(dv_ptr + tile, dv.to(dv_ptr.dtype.element_ty), mask=key[:, None] < T)


@triton.jit
def _dq_phase(dq, q, do, lse, delta, k_ptr, v_ptr, k_stride, v_stride, start, query, begin, end, T, scale,
              N: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr):
    """Keys begin .. end-1 into dq (M, D)."""
    n, d = tl.arange(0, N), tl.arange(0, D)
    for n0 in range(begin, end, N):
        key = n0 + n
        k_tile = k_ptr + tl.cast(n0, tl.int64) * k_stride + n[:, None] * k_stride + d[None, :]
        v_tile = v_ptr + tl.cast(n0, tl.int64) * v_stride + n[:, None] * v_stride + d[None, :]
        k = tl.load(k_tile, mask=key[:, None] < T, other=0.0) if MASKED else tl.load(k_tile)  # (N, D)
        v = tl.load(v_tile, mask=key[:, None] < T, other=0.0) if MASKED else tl.load(v_tile)
        p = tl.exp2(tl.dot(q, tl.trans(k), input_precision="ieee") * scale - lse[:, None])  # (M, N)
        if MASKED:
            p = tl.where((start[:, None] <= key[None, :]) & (key[None, :] <= query[:, None]), p, 0.0)
        ds = p * (tl.dot(do, tl.trans(v), input_precision="ieee") - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    return dq


@triton.jit
def dq_kernel(q_ptr, k_ptr, v_ptr, do_ptr, dq_ptr, lse_ptr, delta_ptr, starts_ptr,
              qb, qt, qh, kb, kt, kh, vb, vt, vh, T, G, scale, root, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """One program: M queries of one head, in the forward's order."""
    h, H, b = tl.program_id(0), tl.num_programs(0), tl.program_id(2).to(tl.int64)
    m0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    m, d = tl.arange(0, M), tl.arange(0, D)
    query = m0 + m
    real = query < T
    starts = starts_ptr + b * T
    start = tl.load(starts + query, mask=real, other=0)
    q = tl.load(q_ptr + b * qb + tl.cast(m0, tl.int64) * qt + h * qh + m[:, None] * qt + d[None, :], mask=real[:, None], other=0.0)
    tile = ((b * T + m0) * H + h) * D + m[:, None] * (H * D) + d[None, :]
    do = tl.load(do_ptr + tile, mask=real[:, None], other=0.0)
    lse = tl.load(lse_ptr + (b * H + h) * T + query, mask=real, other=0.0)
    delta = tl.load(delta_ptr + (b * H + h) * T + query, mask=real, other=0.0)
    k_head, v_head = k_ptr + b * kb + h // G * kh, v_ptr + b * vb + h // G * vh

    first, masked, unmasked, last = _key_phases(starts, m0, T, M, N)
    dq = tl.zeros((M, D), tl.float32)
    dq = _dq_phase(dq, q, do, lse, delta, k_head, v_head, kt, vt, start, query, first, masked, T, scale, N, D, True)
    dq = _dq_phase(dq, q, do, lse, delta, k_head, v_head, kt, vt, start, query, masked, unmasked, T, scale, N, D, False)
    dq = _dq_phase(dq, q, do, lse, delta, k_head, v_head, kt, vt, start, query, unmasked, last, T, scale, N, D, True)
    tl.store(dq_ptr + tile, (dq * root).to(dq_ptr.dtype.element_ty), mask=real[:, None])


# ---------------------------------------------------------------------- as one differentiable operation

@torch.library.custom_op("nanomarco::attention", mutates_args=())
def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor,
               ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(o (B, T, H, D), log-sum-exp (B, H, T) float32 in log2 units)."""
    (B, T, H, D), (M, N, warps, stages) = q.shape, tiles(q)[0]
    o, lse = q.new_empty(q.shape), q.new_empty((B, H, T), dtype=torch.float32)
    grid = (H, triton.cdiv(T, M), B)
    forward_kernel[grid](q, k, v, o, lse, starts, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], T, H // k.shape[2],
                         D ** -0.5 * LOG2E, D, M, N, num_warps=warps, num_stages=stages)
    return o, lse


@_attention.register_fake
def _(q, k, v, starts, ends):
    B, T, H, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((B, H, T), dtype=torch.float32)


@torch.library.custom_op("nanomarco::attention_backward", mutates_args=())
def _attention_backward(do: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, o: torch.Tensor, lse: torch.Tensor,
                        starts: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(dq, dk, dv), contiguous."""
    (B, T, H, D), K, do = q.shape, k.shape[2], do.contiguous()
    dq, dk, dv = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    delta = torch.empty_like(lse)
    delta_kernel[(H, triton.cdiv(T, 64), B)](o, do, delta, T, H, D, 64)
    rest = *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], T, H // K, D ** -0.5 * LOG2E, D ** -0.5, D
    _, (M, N, warps, stages), (M2, N2, warps2, stages2) = tiles(q)
    dkdv_kernel[(K, triton.cdiv(T, N), B)](q, k, v, do, dk, dv, lse, delta, ends, *rest, M, N, num_warps=warps, num_stages=stages)
    dq_kernel[(H, triton.cdiv(T, M2), B)](q, k, v, do, dq, lse, delta, starts, *rest, M2, N2, num_warps=warps2, num_stages=stages2)
    return dq, dk, dv


@_attention_backward.register_fake
def _(do, q, k, v, o, lse, starts, ends):
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx, inputs, output):
    q, k, v, starts, ends = inputs
    ctx.save_for_backward(q, k, v, *output, starts, ends)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, do, _):
    q, k, v, o, lse, starts, ends = ctx.saved_tensors
    return *_attention_backward(do, q, k, v, o, lse, starts, ends), None, None


_attention.register_autograd(_backward, setup_context=_save)


def flash_attention(q, k, v, starts, ends):
    """q (B, T, H, D), k and v (B, T, K, D) of any strides but 1 for the last, starts and ends (B, T) int32, rising -> (B, T, H, D)."""
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    return _attention(q, k, v, starts, ends)[0]
