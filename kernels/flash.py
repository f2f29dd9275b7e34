"""Flash attention over packed documents in Triton: forward and backward, explained at the blackboard in README.md.

Query t of a row sees the keys starts[t] .. t; key s is seen by the queries s .. ends[s]-1. Both arrays rise along the row, so two
numbers bound the keys of a whole tile of queries (and two the queries of a tile of keys): tiles of other documents are never
visited, and of the visited ones only those that a border crosses are masked:

    queries m0..m1     keys [starts[m0] .. starts[m1])   [starts[m1] .. m0]   (m0 .. m1]
                            masked                        not masked           masked

Three loops, not one with an `if`: a branch in the loop's body stops Triton from fetching the next tile while it multiplies this.

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
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.device import generation

# (M, N, warps, stages) of the forward, of dk and dv, of dq: no register is spilled (dk and dv at
# D = 128: at most 64 bytes), and shared memory fits (tests/test_kernels_triton.py).
# "float32" is for checking and for small models: it multiplies without tensor cores.
TILES = {
    "ampere": {64: ((128, 64, 8, 3), (32, 128, 8, 2), (128, 64, 8, 2)), 128: ((128, 64, 8, 3), (64, 64, 8, 2), (64, 64, 8, 2))},
    "hopper": {64: ((128, 128, 8, 2), (64, 128, 8, 2), (128, 64, 8, 3)),
               128: ((128, 128, 8, 2), (32, 128, 8, 2), (128, 64, 8, 3))},
    "blackwell": {64: ((128, 64, 8, 3), (64, 128, 8, 2), (128, 64, 8, 2)),
                  128: ((128, 64, 8, 3), (64, 64, 8, 2), (64, 64, 8, 2))},
    "small": {64: ((128, 64, 8, 2), (32, 128, 8, 2), (128, 64, 8, 2)), 128: ((128, 32, 8, 2), (64, 64, 8, 2), (64, 64, 8, 2))},
    "float32": {64: ((32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 8, 1)), 128: ((32, 32, 8, 1), (16, 32, 8, 1), (32, 32, 8, 1))},
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


def copy_engine(*tensors):
    """Whether the GPU's copy engine may fetch tiles of (B, T, H, D) tensors: in steps of 16 bytes; float32 has pointers."""
    return generation(tensors[0].device) in ("hopper", "blackwell") and all(
        x.dtype != torch.float32 and x.data_ptr() % 16 == 0 and x.shape[-1] * x.element_size() % 16 == 0
        for x in tensors)


def described(copy, rows, *tensors):
    """The tensors, or what the copy engine needs to know to fetch `rows` positions of one head."""
    if not copy:
        return tensors
    return [TensorDescriptor(x, list(x.shape), list(x.stride()), [1, rows, 1, x.shape[-1]]) for x in tensors]


@triton.jit
def _rows(x, b, h, H, T, ROWS: tl.constexpr, D: tl.constexpr, COPY: tl.constexpr):
    """Pointers (ROWS, D) to the first positions of row b and head h in a contiguous (B, T, H, D) tensor. COPY: x is a descriptor
    and stays one; the copy engine of Hopper needs one register where the pointers to a tile need about 30."""
    if COPY:
        return x
    else:
        return x + (tl.cast(b, tl.int64) * T * H + h) * D + tl.arange(0, ROWS)[:, None] * (H * D) + tl.arange(0, D)[None, :]


@triton.jit
def _tile(rows, b, t0, h, H, T, ROWS: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr, COPY: tl.constexpr):
    """What stands ROWS positions from t0 on, zeros behind the last; MASKED: it may be among them."""
    if COPY:
        return rows.load([b, t0, h, 0]).reshape([ROWS, D])
    elif MASKED:
        return tl.load(rows + tl.cast(t0, tl.int64) * (H * D), mask=(t0 + tl.arange(0, ROWS))[:, None] < T, other=0.0)
    else:
        return tl.load(rows + tl.cast(t0, tl.int64) * (H * D))


@triton.jit
def _store(x, value, b, t0, h, H, T, ROWS: tl.constexpr, D: tl.constexpr):
    """Put value (ROWS, D) there."""
    place = _rows(x, b, h, H, T, ROWS, D, False) + tl.cast(t0, tl.int64) * (H * D)
    tl.store(place, value.to(x.dtype.element_ty), mask=(t0 + tl.arange(0, ROWS))[:, None] < T)


# ---------------------------------------------------------------------- forward

@triton.jit
def _key_phases(starts, m0, T, M: tl.constexpr, N: tl.constexpr):
    """Keys that the queries m0 .. m0+M-1 see: (first, end of the masked, end of the unmasked, end), all but the last N apart."""
    first, latest = tl.load(starts + m0), tl.load(starts + tl.minimum(m0 + M, T) - 1)
    masked = first + tl.cdiv(tl.maximum(latest - first, 0), N) * N
    unmasked = masked + tl.maximum(m0 + 1 - masked, 0) // N * N
    return first, masked, unmasked, tl.minimum(m0 + M, T)


@triton.jit
def _forward_phase(acc, total, top, q, k_rows, v_rows, b, h, K, start, query, begin, end, T, scale,
                   N: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr, COPY: tl.constexpr):
    """Keys begin .. end-1 into acc (M, D), the running sum of p v; total (M,), of p; top (M,), the highest score so far."""
    for n0 in range(begin, end, N):
        key = n0 + tl.arange(0, N)
        k = _tile(k_rows, b, n0, h, K, T, N, D, MASKED, COPY)
        score = tl.dot(q, tl.trans(k), input_precision="ieee")  # (M, N)
        if MASKED:
            score = tl.where((start[:, None] <= key[None, :]) & (key[None, :] <= query[:, None]), score, NEVER)
        higher = tl.maximum(top, tl.max(score, 1) * scale)
        p = tl.exp2(score * scale - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(p, 1)
        v = _tile(v_rows, b, n0, h, K, T, N, D, MASKED, COPY)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        top = higher
    return acc, total, top


@triton.jit
def forward_kernel(q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, starts_ptr, T, G, scale,
                   D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, COPY: tl.constexpr):
    """One program: M queries of one head. Heads of a group run side by side, sharing keys in the L2 cache; late tiles first."""
    h, H, b = tl.program_id(0), tl.num_programs(0), tl.program_id(2)
    m0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    query = m0 + tl.arange(0, M)
    starts = starts_ptr + tl.cast(b, tl.int64) * T
    start = tl.load(starts + query, mask=query < T, other=0)
    q = _tile(_rows(q_ptr, b, h, H, T, M, D, COPY), b, m0, h, H, T, M, D, True, COPY)
    acc, total = tl.zeros((M, D), tl.float32), tl.zeros((M,), tl.float32)
    top = tl.full((M,), NEVER, tl.float32)

    K = H // G
    k_rows, v_rows = _rows(k_ptr, b, h // G, K, T, N, D, COPY), _rows(v_ptr, b, h // G, K, T, N, D, COPY)
    first, masked, unmasked, last = _key_phases(starts, m0, T, M, N)
    acc, total, top = _forward_phase(acc, total, top, q, k_rows, v_rows, b, h // G, K, start, query,
                                     first, masked, T, scale, N, D, True, COPY)
    acc, total, top = _forward_phase(acc, total, top, q, k_rows, v_rows, b, h // G, K, start, query,
                                     masked, unmasked, T, scale, N, D, False, COPY)
    acc, total, top = _forward_phase(acc, total, top, q, k_rows, v_rows, b, h // G, K, start, query,
                                     unmasked, last, T, scale, N, D, True, COPY)

    sees = start <= query  # false for padding on the left, whose output is 0
    total = tl.where(sees, total, 1.0)
    o = tl.where(sees[:, None], acc / total[:, None], 0.0)
    _store(o_ptr, o, b, m0, h, H, T, M, D)
    tl.store(lse_ptr + tl.cast(b * H + h, tl.int64) * T + query, tl.where(sees, top + tl.log2(total), 0.0), mask=query < T)


# ---------------------------------------------------------------------- backward

@triton.jit
def delta_kernel(o_ptr, do_ptr, delta_ptr, T, H, D: tl.constexpr, M: tl.constexpr):
    """delta = do . o of M queries of one head, float32."""
    h, m0, b = tl.program_id(0), tl.program_id(1) * M, tl.program_id(2)
    query = m0 + tl.arange(0, M)
    o = _tile(_rows(o_ptr, b, h, H, T, M, D, False), b, m0, h, H, T, M, D, True, False).to(tl.float32)
    do = _tile(_rows(do_ptr, b, h, H, T, M, D, False), b, m0, h, H, T, M, D, True, False).to(tl.float32)
    tl.store(delta_ptr + tl.cast(b * H + h, tl.int64) * T + query, tl.sum(o * do, 1), mask=query < T)


@triton.jit
def _dkdv_phase(dk, dv, k, v, q_rows, do_rows, lse_ptr, delta_ptr, b, h, H, key, seen_until, begin, end, T, scale,
                M: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr, COPY: tl.constexpr):
    """Queries begin .. end-1 of one head into dk and dv (N, D); everything is transposed, keys down and queries across."""
    for m0 in range(begin, end, M):
        query = m0 + tl.arange(0, M)
        q = _tile(q_rows, b, m0, h, H, T, M, D, MASKED, COPY)
        do = _tile(do_rows, b, m0, h, H, T, M, D, MASKED, COPY)
        if MASKED:  # 0 behind the last query, where p is 0 too
            lse = tl.load(lse_ptr + query, mask=query < T, other=0.0)
            delta = tl.load(delta_ptr + query, mask=query < T, other=0.0)
        else:
            lse, delta = tl.load(lse_ptr + query), tl.load(delta_ptr + query)
        p = tl.exp2(tl.dot(k, tl.trans(q), input_precision="ieee") * scale - lse[None, :])  # (N, M)
        if MASKED:
            p = tl.where((key[:, None] <= query[None, :]) & (query[None, :] < seen_until[:, None]), p, 0.0)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
        ds = p * (tl.dot(v, tl.trans(do), input_precision="ieee") - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def dkdv_kernel(q_ptr, k_ptr, v_ptr, do_ptr, dk_ptr, dv_ptr, lse_ptr, delta_ptr, ends_ptr,
                T, G, scale, root, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, COPY: tl.constexpr):
    """One program: N keys of one key/value head, against the queries of the G heads that share it."""
    h, K, n0, b = tl.program_id(0), tl.num_programs(0), tl.program_id(1) * N, tl.program_id(2)
    H = K * G
    key = n0 + tl.arange(0, N)
    ends = ends_ptr + tl.cast(b, tl.int64) * T
    seen_until = tl.load(ends + key, mask=key < T, other=0)
    k = _tile(_rows(k_ptr, b, h, K, T, N, D, COPY), b, n0, h, K, T, N, D, True, COPY)
    v = _tile(_rows(v_ptr, b, h, K, T, N, D, COPY), b, n0, h, K, T, N, D, True, COPY)
    dk, dv = tl.zeros((N, D), tl.float32), tl.zeros((N, D), tl.float32)

    whole, last = tl.load(ends + n0), tl.load(ends + tl.minimum(n0 + N, T) - 1)
    masked = n0 + tl.cdiv(N - 1, M) * M  # from here on queries stand behind all keys, and those below `whole` see them all
    unmasked = masked + tl.maximum(whole - masked, 0) // M * M
    for head in range(h * G, h * G + G):
        q_rows, do_rows = _rows(q_ptr, b, head, H, T, M, D, COPY), _rows(do_ptr, b, head, H, T, M, D, COPY)
        lse, delta = lse_ptr + tl.cast(b * H + head, tl.int64) * T, delta_ptr + tl.cast(b * H + head, tl.int64) * T
        dk, dv = _dkdv_phase(dk, dv, k, v, q_rows, do_rows, lse, delta, b, head, H, key, seen_until,
                             n0, tl.minimum(masked, last), T, scale, M, D, True, COPY)
        dk, dv = _dkdv_phase(dk, dv, k, v, q_rows, do_rows, lse, delta, b, head, H, key, seen_until,
                             masked, unmasked, T, scale, M, D, False, COPY)
        dk, dv = _dkdv_phase(dk, dv, k, v, q_rows, do_rows, lse, delta, b, head, H, key, seen_until,
                             unmasked, last, T, scale, M, D, True, COPY)
    _store(dk_ptr, dk * root, b, n0, h, K, T, N, D)
    _store(dv_ptr, dv, b, n0, h, K, T, N, D)


@triton.jit
def _dq_phase(dq, q, do, lse, delta, k_rows, v_rows, b, h, K, start, query, begin, end, T, scale,
              N: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr, COPY: tl.constexpr):
    """Keys begin .. end-1 into dq (M, D)."""
    for n0 in range(begin, end, N):
        key = n0 + tl.arange(0, N)
        k = _tile(k_rows, b, n0, h, K, T, N, D, MASKED, COPY)
        v = _tile(v_rows, b, n0, h, K, T, N, D, MASKED, COPY)
        p = tl.exp2(tl.dot(q, tl.trans(k), input_precision="ieee") * scale - lse[:, None])  # (M, N)
        if MASKED:
            p = tl.where((start[:, None] <= key[None, :]) & (key[None, :] <= query[:, None]), p, 0.0)
        ds = p * (tl.dot(do, tl.trans(v), input_precision="ieee") - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    return dq


@triton.jit
def dq_kernel(q_ptr, k_ptr, v_ptr, do_ptr, dq_ptr, lse_ptr, delta_ptr, starts_ptr,
              T, G, scale, root, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, COPY: tl.constexpr):
    """One program: M queries of one head, in the forward's order."""
    h, H, b = tl.program_id(0), tl.num_programs(0), tl.program_id(2)
    m0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    query = m0 + tl.arange(0, M)
    starts = starts_ptr + tl.cast(b, tl.int64) * T
    start = tl.load(starts + query, mask=query < T, other=0)
    q = _tile(_rows(q_ptr, b, h, H, T, M, D, COPY), b, m0, h, H, T, M, D, True, COPY)
    do = _tile(_rows(do_ptr, b, h, H, T, M, D, COPY), b, m0, h, H, T, M, D, True, COPY)
    lse = tl.load(lse_ptr + tl.cast(b * H + h, tl.int64) * T + query, mask=query < T, other=0.0)
    delta = tl.load(delta_ptr + tl.cast(b * H + h, tl.int64) * T + query, mask=query < T, other=0.0)

    K = H // G
    k_rows, v_rows = _rows(k_ptr, b, h // G, K, T, N, D, COPY), _rows(v_ptr, b, h // G, K, T, N, D, COPY)
    first, masked, unmasked, last = _key_phases(starts, m0, T, M, N)
    dq = tl.zeros((M, D), tl.float32)
    dq = _dq_phase(dq, q, do, lse, delta, k_rows, v_rows, b, h // G, K, start, query,
                   first, masked, T, scale, N, D, True, COPY)
    dq = _dq_phase(dq, q, do, lse, delta, k_rows, v_rows, b, h // G, K, start, query,
                   masked, unmasked, T, scale, N, D, False, COPY)
    dq = _dq_phase(dq, q, do, lse, delta, k_rows, v_rows, b, h // G, K, start, query,
                   unmasked, last, T, scale, N, D, True, COPY)
    _store(dq_ptr, dq * root, b, m0, h, H, T, M, D)


# ---------------------------------------------------------------------- as one differentiable operation

@torch.library.custom_op("nanomarco::attention", mutates_args=())
def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor,
               ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(o (B, T, H, D), log-sum-exp (B, H, T) float32 in log2 units)."""
    (B, T, H, D), (M, N, warps, stages), copy = q.shape, tiles(q)[0], copy_engine(q, k, v)
    o, lse = q.new_empty(q.shape), q.new_empty((B, H, T), dtype=torch.float32)
    grid = (H, triton.cdiv(T, M), B)
    forward_kernel[grid](*described(copy, M, q), *described(copy, N, k, v), o, lse, starts, T, H // k.shape[2],
                         D ** -0.5 * LOG2E, D, M, N, copy, num_warps=warps, num_stages=stages)
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
    rest = T, H // K, D ** -0.5 * LOG2E, D ** -0.5, D
    copy = copy_engine(q, k, v, do)
    _, (M, N, warps, stages), (M2, N2, warps2, stages2) = tiles(q)
    (q1, do1), (k1, v1) = described(copy, M, q, do), described(copy, N, k, v)
    dkdv_kernel[(K, triton.cdiv(T, N), B)](q1, k1, v1, do1, dk, dv, lse, delta, ends, *rest, M, N, copy,
                                           num_warps=warps, num_stages=stages)
    (q2, do2), (k2, v2) = described(copy, M2, q, do), described(copy, N2, k, v)
    dq_kernel[(H, triton.cdiv(T, M2), B)](q2, k2, v2, do2, dq, lse, delta, starts, *rest, M2, N2, copy,
                                          num_warps=warps2, num_stages=stages2)
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
    """q (B, T, H, D), k and v (B, T, K, D), starts and ends (B, T) int32, both rising along the row -> (B, T, H, D)."""
    return _attention(q.contiguous(), k.contiguous(), v.contiguous(), starts, ends)[0]
