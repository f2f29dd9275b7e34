"""Flash attention over packed documents in Triton, forward and backward; README.md explains it step by step.

Query t of a row attends to the keys starts[t] .. t; key s is attended to by the queries s .. ends[s]-1. Both arrays
rise along the row, so two numbers bound the keys of a whole tile of queries (and two the queries of a tile of keys).
Tiles of other documents are never visited, and only those that a document boundary crosses need a mask:

    queries m0..m1     keys [starts[m0] .. starts[m1])   [starts[m1] .. m0]   (m0 .. m1]
                            masked                        not masked           masked

Three loops, not one with an `if`: a branch in the loop body keeps Triton from loading the next tile during the
multiplication.

Scores are in log2 units (exp2 is one instruction). The forward saves one float32 per query and head, the log-sum-exp,
from which the backward recomputes the probabilities p = exp2(score - lse):

    dv[s] = sum_t p[t,s] do[t]      ds[t,s] = p[t,s] (do[t] . v[s] - delta[t]),  delta[t] = do[t] . o[t]
    dk[s] = sum_t ds[t,s] q[t] / sqrt(D)            dq[t] = sum_s ds[t,s] k[s] / sqrt(D)

(Dao, FlashAttention-2, 2023, algorithms 1 and 2.) One program owns dk and dv of a tile of keys, summed over the
queries of all heads of the group; another owns dq of a tile of queries. Scores are computed twice, but no sum has two
writers, so every run gives the same bits.

Legend: B rows, T positions, H query heads, K key/value heads, G = H / K, D head size, M and N queries and keys of a
tile.
"""
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.device import gpu_generation

# (M, N, warps, stages) of the forward, of dk and dv, and of dq. No registers spill (dk and dv at D = 128: at most 64
# bytes) and shared memory fits: tests/test_kernels_triton.py compiles them. "float32" is for checks and small models:
# no tensor cores.
TILES = {
    "ampere": {64: ((128, 64, 8, 3), (32, 128, 8, 2), (128, 64, 8, 2)),
               128: ((128, 64, 8, 3), (64, 64, 8, 2), (64, 64, 8, 2))},
    "hopper": {64: ((128, 128, 8, 2), (64, 128, 8, 2), (128, 64, 8, 3)),
               128: ((128, 128, 8, 2), (32, 128, 8, 2), (128, 64, 8, 3))},
    "blackwell": {64: ((128, 64, 8, 3), (64, 128, 8, 2), (128, 64, 8, 2)),
                  128: ((128, 64, 8, 3), (64, 64, 8, 2), (64, 64, 8, 2))},
    "small": {64: ((128, 64, 8, 2), (32, 128, 8, 2), (128, 64, 8, 2)),
              128: ((128, 32, 8, 2), (64, 64, 8, 2), (64, 64, 8, 2))},
    "float32": {64: ((32, 32, 4, 1), (32, 32, 4, 1), (32, 32, 8, 1)),
                128: ((32, 32, 8, 1), (16, 32, 8, 1), (32, 32, 8, 1))},
    "cpu": {64: ((32, 16, 4, 1), (16, 32, 4, 1), (32, 16, 4, 1)),
            128: ((16, 32, 4, 1), (32, 16, 4, 1), (16, 32, 4, 1))},
}
LOG2E = 1.4426950408889634
MASKED_SCORE = tl.constexpr(-1e30)  # -inf would give nan for a query whose first tile is fully masked


def tiles(x: torch.Tensor) -> tuple:
    """The three entries of TILES for x (..., D)."""
    table = gpu_generation(x.device)
    if table != "cpu" and x.dtype == torch.float32:
        table = "float32"
    return TILES[table][64 if x.shape[-1] <= 64 else 128]


def copy_engine(*tensors: torch.Tensor) -> bool:
    """Whether the GPU's copy engine (TMA) may load tiles of these (B, T, H, D) tensors.

    It needs 16-byte alignment; float32 uses pointers.
    """
    return gpu_generation(tensors[0].device) in ("hopper", "blackwell") and all(
        x.dtype != torch.float32 and x.data_ptr() % 16 == 0 and x.shape[-1] * x.element_size() % 16 == 0
        for x in tensors)


def descriptors(copy, rows, *tensors):
    """The tensors; with `copy`, descriptors by which the copy engine loads `rows` positions of one head."""
    if not copy:
        return tensors
    return [TensorDescriptor(x, list(x.shape), list(x.stride()), [1, rows, 1, x.shape[-1]]) for x in tensors]


@triton.jit
def _rows(x, b, h, H, T, ROWS: tl.constexpr, D: tl.constexpr, COPY: tl.constexpr):
    """Pointers (ROWS, D) to the first positions of row b and head h in a contiguous (B, T, H, D) tensor.

    COPY: x is a descriptor and is returned as it is; it takes one register where the pointers to a tile take about 30.
    """
    if COPY:
        pointers = x
    else:
        first = x + (tl.cast(b, tl.int64) * T * H + h) * D
        pointers = first + tl.arange(0, ROWS)[:, None] * (H * D) + tl.arange(0, D)[None, :]
    return pointers


@triton.jit
def _tile(rows, b, t0, h, H, T, ROWS: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr, COPY: tl.constexpr):
    """Load ROWS positions starting at t0. MASKED: they may extend past T, where zeros are returned."""
    if COPY:
        tile = rows.load([b, t0, h, 0]).reshape([ROWS, D])
    elif MASKED:
        valid = (t0 + tl.arange(0, ROWS))[:, None] < T
        tile = tl.load(rows + tl.cast(t0, tl.int64) * (H * D), mask=valid, other=0.0)
    else:
        tile = tl.load(rows + tl.cast(t0, tl.int64) * (H * D))
    return tile


@triton.jit
def _store(x, value, b, t0, h, H, T, ROWS: tl.constexpr, D: tl.constexpr):
    """Store value (ROWS, D) at the positions starting at t0."""
    place = _rows(x, b, h, H, T, ROWS, D, False) + tl.cast(t0, tl.int64) * (H * D)
    tl.store(place, value.to(x.dtype.element_ty), mask=(t0 + tl.arange(0, ROWS))[:, None] < T)


# ---------------------------------------------------------------------- forward

@triton.jit
def _key_phases(starts, m0, T, M: tl.constexpr, N: tl.constexpr):
    """Keys of the queries m0 .. m0+M-1: (first, end of the first masked phase, end of the unmasked phase, end).

    The lengths of the first two phases are multiples of N.
    """
    first, latest = tl.load(starts + m0), tl.load(starts + tl.minimum(m0 + M, T) - 1)
    masked = first + tl.cdiv(tl.maximum(latest - first, 0), N) * N
    unmasked = masked + tl.maximum(m0 + 1 - masked, 0) // N * N
    return first, masked, unmasked, tl.minimum(m0 + M, T)


@triton.jit
def _forward_phase(acc, total, maximum, q, k_rows, v_rows, b, h, K, start, query, begin, end, T, scale,
                   N: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr, COPY: tl.constexpr):
    """Add keys begin .. end-1 to acc (M, D), the running sum of p v, and total (M,), that of p; maximum (M,): the
    highest score so far.
    """
    for n0 in range(begin, end, N):
        key = n0 + tl.arange(0, N)
        k = _tile(k_rows, b, n0, h, K, T, N, D, MASKED, COPY)
        score = tl.dot(q, tl.trans(k), input_precision="ieee")  # (M, N)
        if MASKED:
            score = tl.where((start[:, None] <= key[None, :]) & (key[None, :] <= query[:, None]), score, MASKED_SCORE)
        new_maximum = tl.maximum(maximum, tl.max(score, 1) * scale)
        p = tl.exp2(score * scale - new_maximum[:, None])
        rescale = tl.exp2(maximum - new_maximum)
        total = total * rescale + tl.sum(p, 1)
        v = _tile(v_rows, b, n0, h, K, T, N, D, MASKED, COPY)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None], input_precision="ieee")
        maximum = new_maximum
    return acc, total, maximum


@triton.jit
def forward_kernel(q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, starts_ptr, T, G, scale,
                   D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, COPY: tl.constexpr):
    """One program: M queries of one head. Heads of a group run next to each other and share keys in the L2 cache; the
    last tiles, which have the most keys, start first.
    """
    h, H, b = tl.program_id(0), tl.num_programs(0), tl.program_id(2)
    m0 = (tl.num_programs(1) - 1 - tl.program_id(1)) * M
    query = m0 + tl.arange(0, M)
    starts = starts_ptr + tl.cast(b, tl.int64) * T
    start = tl.load(starts + query, mask=query < T, other=0)
    q = _tile(_rows(q_ptr, b, h, H, T, M, D, COPY), b, m0, h, H, T, M, D, True, COPY)
    acc, total = tl.zeros((M, D), tl.float32), tl.zeros((M,), tl.float32)
    maximum = tl.full((M,), MASKED_SCORE, tl.float32)

    K = H // G
    k_rows, v_rows = _rows(k_ptr, b, h // G, K, T, N, D, COPY), _rows(v_ptr, b, h // G, K, T, N, D, COPY)
    first, masked, unmasked, last = _key_phases(starts, m0, T, M, N)
    acc, total, maximum = _forward_phase(acc, total, maximum, q, k_rows, v_rows, b, h // G, K, start, query,
                                     first, masked, T, scale, N, D, True, COPY)
    acc, total, maximum = _forward_phase(acc, total, maximum, q, k_rows, v_rows, b, h // G, K, start, query,
                                     masked, unmasked, T, scale, N, D, False, COPY)
    acc, total, maximum = _forward_phase(acc, total, maximum, q, k_rows, v_rows, b, h // G, K, start, query,
                                     unmasked, last, T, scale, N, D, True, COPY)

    has_keys = start <= query  # false for padding on the left, whose output is 0
    total = tl.where(has_keys, total, 1.0)
    o = tl.where(has_keys[:, None], acc / total[:, None], 0.0)
    _store(o_ptr, o, b, m0, h, H, T, M, D)
    lse = tl.where(has_keys, maximum + tl.log2(total), 0.0)
    tl.store(lse_ptr + tl.cast(b * H + h, tl.int64) * T + query, lse, mask=query < T)


# ---------------------------------------------------------------------- backward

@triton.jit
def delta_kernel(o_ptr, do_ptr, delta_ptr, T, H, D: tl.constexpr, M: tl.constexpr):
    """One program: delta = do . o of M queries of one head, in float32."""
    h, m0, b = tl.program_id(0), tl.program_id(1) * M, tl.program_id(2)
    query = m0 + tl.arange(0, M)
    o = _tile(_rows(o_ptr, b, h, H, T, M, D, False), b, m0, h, H, T, M, D, True, False).to(tl.float32)
    do = _tile(_rows(do_ptr, b, h, H, T, M, D, False), b, m0, h, H, T, M, D, True, False).to(tl.float32)
    tl.store(delta_ptr + tl.cast(b * H + h, tl.int64) * T + query, tl.sum(o * do, 1), mask=query < T)


@triton.jit
def _dkdv_phase(dk, dv, k, v, q_rows, do_rows, lse_ptr, delta_ptr, b, h, H, key, query_end, begin, end, T, scale,
                M: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr, COPY: tl.constexpr):
    """Add queries begin .. end-1 of one head to dk and dv (N, D). Everything is transposed: keys are rows, queries
    columns.
    """
    for m0 in range(begin, end, M):
        query = m0 + tl.arange(0, M)
        q = _tile(q_rows, b, m0, h, H, T, M, D, MASKED, COPY)
        do = _tile(do_rows, b, m0, h, H, T, M, D, MASKED, COPY)
        if MASKED:  # zeros past the last query, where p is 0 as well
            lse = tl.load(lse_ptr + query, mask=query < T, other=0.0)
            delta = tl.load(delta_ptr + query, mask=query < T, other=0.0)
        else:
            lse, delta = tl.load(lse_ptr + query), tl.load(delta_ptr + query)
        p = tl.exp2(tl.dot(k, tl.trans(q), input_precision="ieee") * scale - lse[None, :])  # (N, M)
        if MASKED:
            p = tl.where((key[:, None] <= query[None, :]) & (query[None, :] < query_end[:, None]), p, 0.0)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
        ds = p * (tl.dot(v, tl.trans(do), input_precision="ieee") - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def dkdv_kernel(q_ptr, k_ptr, v_ptr, do_ptr, dk_ptr, dv_ptr, lse_ptr, delta_ptr, ends_ptr,
                T, G, scale, root, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, COPY: tl.constexpr):
    """One program: N keys of one key/value head, with the queries of the G heads that share it."""
    h, K, n0, b = tl.program_id(0), tl.num_programs(0), tl.program_id(1) * N, tl.program_id(2)
    H = K * G
    key = n0 + tl.arange(0, N)
    ends = ends_ptr + tl.cast(b, tl.int64) * T
    query_end = tl.load(ends + key, mask=key < T, other=0)
    k = _tile(_rows(k_ptr, b, h, K, T, N, D, COPY), b, n0, h, K, T, N, D, True, COPY)
    v = _tile(_rows(v_ptr, b, h, K, T, N, D, COPY), b, n0, h, K, T, N, D, True, COPY)
    dk, dv = tl.zeros((N, D), tl.float32), tl.zeros((N, D), tl.float32)

    whole, last = tl.load(ends + n0), tl.load(ends + tl.minimum(n0 + N, T) - 1)
    # from here on queries come after all keys of the tile, and those below `whole` attend to all of them
    masked = n0 + tl.cdiv(N - 1, M) * M
    unmasked = masked + tl.maximum(whole - masked, 0) // M * M
    for head in range(h * G, h * G + G):
        q_rows, do_rows = _rows(q_ptr, b, head, H, T, M, D, COPY), _rows(do_ptr, b, head, H, T, M, D, COPY)
        lse, delta = lse_ptr + tl.cast(b * H + head, tl.int64) * T, delta_ptr + tl.cast(b * H + head, tl.int64) * T
        dk, dv = _dkdv_phase(dk, dv, k, v, q_rows, do_rows, lse, delta, b, head, H, key, query_end,
                             n0, tl.minimum(masked, last), T, scale, M, D, True, COPY)
        dk, dv = _dkdv_phase(dk, dv, k, v, q_rows, do_rows, lse, delta, b, head, H, key, query_end,
                             masked, unmasked, T, scale, M, D, False, COPY)
        dk, dv = _dkdv_phase(dk, dv, k, v, q_rows, do_rows, lse, delta, b, head, H, key, query_end,
                             unmasked, last, T, scale, M, D, True, COPY)
    _store(dk_ptr, dk * root, b, n0, h, K, T, N, D)
    _store(dv_ptr, dv, b, n0, h, K, T, N, D)


@triton.jit
def _dq_phase(dq, q, do, lse, delta, k_rows, v_rows, b, h, K, start, query, begin, end, T, scale,
              N: tl.constexpr, D: tl.constexpr, MASKED: tl.constexpr, COPY: tl.constexpr):
    """Add keys begin .. end-1 to dq (M, D)."""
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
    """One program: M queries of one head, in the order of the forward."""
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


# ---------------------------------------------------------------------- autograd

@torch.library.custom_op("nanomarco::attention", mutates_args=())
def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor,
               ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(o (B, T, H, D), log-sum-exp (B, H, T) float32 in log2 units)."""
    (B, T, H, D), (M, N, warps, stages), copy = q.shape, tiles(q)[0], copy_engine(q, k, v)
    o, lse = q.new_empty(q.shape), q.new_empty((B, H, T), dtype=torch.float32)
    grid = (H, triton.cdiv(T, M), B)
    forward_kernel[grid](*descriptors(copy, M, q), *descriptors(copy, N, k, v), o, lse, starts, T, H // k.shape[2],
                         D ** -0.5 * LOG2E, D, M, N, copy, num_warps=warps, num_stages=stages)
    return o, lse


@_attention.register_fake
def _(q, k, v, starts, ends):
    B, T, H, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((B, H, T), dtype=torch.float32)


@torch.library.custom_op("nanomarco::attention_backward", mutates_args=())
def _attention_backward(do: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, o: torch.Tensor,
                        lse: torch.Tensor, starts: torch.Tensor,
                        ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(dq, dk, dv), contiguous."""
    (B, T, H, D), K, do = q.shape, k.shape[2], do.contiguous()
    dq, dk, dv = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    delta = torch.empty_like(lse)
    delta_kernel[(H, triton.cdiv(T, 64), B)](o, do, delta, T, H, D, 64)
    rest = T, H // K, D ** -0.5 * LOG2E, D ** -0.5, D
    copy = copy_engine(q, k, v, do)
    _, (M, N, warps, stages), (M2, N2, warps2, stages2) = tiles(q)
    (q1, do1), (k1, v1) = descriptors(copy, M, q, do), descriptors(copy, N, k, v)
    dkdv_kernel[(K, triton.cdiv(T, N), B)](q1, k1, v1, do1, dk, dv, lse, delta, ends, *rest, M, N, copy,
                                           num_warps=warps, num_stages=stages)
    (q2, do2), (k2, v2) = descriptors(copy, M2, q, do), descriptors(copy, N2, k, v)
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


def flash_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor,
                    ends: torch.Tensor) -> torch.Tensor:
    """q (B, T, H, D), k and v (B, T, K, D), starts and ends (B, T) int32, both rising along the row -> (B, T, H, D)."""
    return _attention(q.contiguous(), k.contiguous(), v.contiguous(), starts, ends)[0]
