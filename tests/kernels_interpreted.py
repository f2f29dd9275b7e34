"""The Triton kernels in Triton's interpreter, against float64. test_kernels_triton.py runs this file in a process of
its own, because Triton reads TRITON_INTERPRET once, at its import:

    TRITON_INTERPRET=1 python -m pytest tests/kernels_interpreted.py

Uninitialized memory is filled with nan. bfloat16 needs a GPU: the interpreter's tl.dot multiplies its bit patterns.
"""
import pytest
import torch
from test_kernels import PATTERNS, definition, example, naive, random_rows, starts_of
from torch.utils._python_dispatch import TorchDispatchMode

import kernels
from kernels import attention, attention_triton, document_mask, rms_norm, rope, swiglu, target_logprobs
from kernels.attention import attention_reference
from kernels.decode_triton import decode
from kernels.rms_norm import rms_norm_reference
from kernels.rope import rope_reference
from kernels.swiglu import swiglu_reference
from model import ModelConfig, Qwen2

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3}  # of the norm of the difference, relative


@pytest.fixture(autouse=True)
def poison():
    """Fill every torch.empty with nan."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def close(ours, wanted, dtype=torch.float32):
    """Compare root mean squares; where the expected value is 0, such as the gradient of a lone token's query,
    absolutely.
    """
    for a, b in zip(ours, wanted, strict=True):
        assert a.shape == b.shape
        error, size = (a.double() - b.double()).norm().item(), b.double().norm().item()
        assert error <= TOLERANCE[dtype] * max(size, 0.1 * b.numel() ** 0.5), f"{error} of {size}"


def check_attention(rows, H=2, K=1, D=16, dtype=torch.float32, starts=None):
    """Values and gradients, and that the kernels computed them."""
    starts = starts_of(rows) if starts is None else starts
    g = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(*starts.shape, heads, D, generator=g).to(dtype).requires_grad_() for heads in (H, K, K))
    up = torch.randn(*starts.shape, H, D, generator=g).to(dtype)
    mask = document_mask(starts)
    assert mask.ends is not None
    out = attention(q, k, v, mask)
    assert out.dtype == dtype and ("nanomarco_attention" in out.grad_fn.name()) == (D != 24)
    ours = torch.autograd.grad(out, (q, k, v), up)
    wanted = naive(q, k, v, starts)
    close([out, *ours], [wanted, *torch.autograd.grad(wanted, (q, k, v), up.double())], dtype)


@pytest.mark.parametrize("rows", [[[1]], [[127]], [[1] * 40], [[1, 20, 1, 1, 37], [59, 1]], random_rows(3, 1, 70)],
                         ids=str)
def test_attention(rows):
    check_attention(rows)


@pytest.mark.parametrize("H, K", [(1, 1), (8, 2), (6, 1), (7, 1), (8, 1)])
def test_attention_grouped_heads(H, K):
    check_attention([[9, 1, 13]], H, K)


@pytest.mark.parametrize("D", [64, 128])
def test_attention_half_precision(D):
    check_attention([[30, 40]], D=D, dtype=torch.float16)


def test_attention_by_descriptors(monkeypatch):
    """What runs on Hopper: tiles loaded by the copy engine."""
    monkeypatch.setattr(attention_triton, "copy_engine", lambda *tensors: True)
    check_attention([[13, 27, 1], [41]], dtype=torch.float16)


def test_attention_of_padding_on_the_left():
    """Queries before `starts` have no keys: their output is 0 and they pass no gradient on."""
    starts = torch.tensor([[37] * 60, [0] * 60])
    q, k, v = (torch.randn(2, 60, 1, 16, requires_grad=True) for _ in range(3))
    out = attention(q, k, v, document_mask(starts))
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert all(not x[0, :37].any() for x in (out, *grads))
    alone = attention(q[:1, 37:], k[:1, 37:], v[:1, 37:], document_mask(torch.zeros(1, 23, dtype=torch.int64)))
    close([out[:1, 37:]], [alone])


def test_attention_of_odd_head_sizes_and_with_a_cache():
    """PyTorch computes D = 24; fewer queries than keys go to the decoding kernel unless a gradient is needed."""
    check_attention([[5, 6]], D=24)
    starts = torch.tensor([[0], [4]]).expand(-1, 3)
    q, k, v = torch.randn(2, 3, 4, 16), torch.randn(2, 9, 2, 16), torch.randn(2, 9, 2, 16)
    outs = [attention(q, k, v, document_mask(starts)), attention(q.requires_grad_(), k, v, document_mask(starts))]
    close(outs, [naive(q, k, v, starts)] * 2)


def test_attention_of_windows():
    """Any rising `starts` is a mask, such as a window of 40 keys in documents: a tile has two boundaries and keys
    between.
    """
    starts = starts_of([[90, 20]])
    check_attention(None, starts=torch.maximum(starts, torch.arange(110) - 39))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("D", [16, 128])
@pytest.mark.parametrize("name", PATTERNS)
def test_attention_sweep(name, D, dtype):
    check_attention(PATTERNS[name], 4, 2, D, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("card", ["ampere", "hopper", "blackwell", "small"])
@pytest.mark.parametrize("D", [64, 128])
def test_attention_with_the_shipped_tiles(card, D, copy, monkeypatch):
    monkeypatch.setitem(attention_triton.TILES, "cpu", attention_triton.TILES[card])
    monkeypatch.setattr(attention_triton, "copy_engine", lambda *tensors: copy)
    check_attention([[200, 1, 99]], 2, 1, D, torch.float16)


@pytest.mark.slow
@pytest.mark.parametrize("H, K", [(2, 2), (8, 2), (12, 2), (14, 2), (16, 2)])
def test_attention_of_random_documents(H, K):
    check_attention(random_rows(H, 1, 160), H, K)


# ---------------------------------------------------------------------- decoding

@pytest.mark.parametrize("T, H, K, S, splits, dtype",
                         [(1, 7, 1, 70, 1, torch.float16), (3, 4, 2, 130, 3, torch.float32),
                                                       (12, 6, 1, 64, 2, torch.float32), (1, 2, 2, 1, 1,
                                                                                          torch.float32)], ids=str)
def test_decode(T, H, K, S, splits, dtype):
    g = torch.Generator().manual_seed(2)
    cache = torch.randn(2, 2, S + 5, K, 16, generator=g).to(dtype)  # keys and values: views of something longer
    q, k, v = torch.randn(2, T, H, 16, generator=g).to(dtype), cache[0, :, :S], cache[1, :, :S]
    starts = torch.tensor([[0], [S - T]]).expand(2, T)
    close([decode(q, k, v, starts, splits=splits)], [attention_reference(q.double(), k.double(), v.double(), starts)],
          dtype)


@pytest.mark.parametrize("splits", [1, 2])
def test_decode_many_answers_to_one_context(splits):
    """Each answer attends to the context and itself, as if it followed its own copy of the context."""
    context, sizes = 90, (3, 1, 5)
    T, S = sum(sizes), 90 + sum(sizes)
    q, k, v = torch.randn(1, T, 4, 16), torch.randn(1, S, 2, 16), torch.randn(1, S, 2, 16)
    begins = [context + sum(sizes[:i]) for i in range(3)]
    starts = torch.tensor([[b for b, n in zip(begins, sizes) for _ in range(n)]])
    out, alone = decode(q, k, v, starts, torch.tensor([context]), splits), []
    for b, n in zip(begins, sizes):
        keys = [*range(context), *range(b, b + n)]
        alone.append(naive(q[:, b - context:b - context + n], k[:, keys], v[:, keys],
                           torch.zeros(1, n, dtype=torch.int64)))
    close([out, attention_reference(q, k, v, starts, torch.tensor([context]))], [torch.cat(alone, 1)] * 2)


def test_decode_of_a_query_without_keys():
    q, k, v = torch.randn(1, 2, 2, 16), torch.randn(1, 40, 2, 16), torch.randn(1, 40, 2, 16)
    assert not decode(q, k, v, torch.tensor([[40, 40]]), splits=2).any()


# ---------------------------------------------------------------------- the others

@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(1, 8), (7, 96), (3, 5, 2, 16), (300, 33)], ids=str)
def test_rms_norm(shape, dtype):
    """Alone, and after a residual addition whose sum has a gradient of its own."""
    x, r, up, other = (torch.randn(shape).to(dtype) for _ in range(4))
    w = torch.rand(shape[-1]) + 0.5
    x.requires_grad_(), r.requires_grad_(), w.requires_grad_()
    y = rms_norm(x, w, 1e-6)
    wanted = rms_norm_reference(x.double(), w.to(dtype).double(), 1e-6)
    close([y, *torch.autograd.grad(y, (x, w), up)], [wanted, *torch.autograd.grad(wanted, (x, w), up.double())], dtype)
    h, y = kernels.add_rms_norm(x, r, w, 1e-6)
    total = (x + r).double()
    wanted = rms_norm_reference(total, w.to(dtype).double(), 1e-6)
    theirs = torch.autograd.grad([total, wanted], (x, r, w), [other.double(), up.double()])
    close([h, y, *torch.autograd.grad([h, y], (x, r, w), [other, up])], [total, wanted, *theirs], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_swiglu(dtype):
    gate, up, dy = (4 * torch.randn(3, 1500).to(dtype) for _ in range(3))  # more than one block
    gate.requires_grad_(), up.requires_grad_()
    y, wanted = swiglu(gate, up), swiglu_reference(gate.double(), up.double())
    close([y, *torch.autograd.grad(y, (gate, up), dy)],
          [wanted, *torch.autograd.grad(wanted, (gate, up), dy.double())], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("H, K, D", [(1, 1, 2), (7, 1, 64), (6, 3, 8)])
def test_rope(H, K, D, dtype):
    q, k, dq, dk = (torch.randn(2, 5, heads, D).to(dtype) for heads in (H, K, H, K))
    angle = torch.cat([torch.rand(2, 5, 1, D // 2)] * 2, -1) * 6
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    q.requires_grad_(), k.requires_grad_()
    ours, wanted = rope(q, k, cos, sin), rope_reference(q.double(), k.double(), cos.double(), sin.double())
    close([*ours, *torch.autograd.grad(ours, (q, k), (dq, dk))],
          [*wanted, *torch.autograd.grad(wanted, (q, k), (dq.double(), dk.double()))], dtype)


@pytest.mark.parametrize("upstream", ["ones", "uneven"])
@pytest.mark.parametrize("N, V", [(1, 50), (20, 9000)])  # 9000 columns are two blocks
def test_target_logprobs(N, V, upstream, monkeypatch):
    monkeypatch.setattr(kernels.cross_entropy, "CHUNK", 16 * V)  # more than one chunk
    x, w, targets, g = example(N, V)
    w = (w.detach() * torch.linspace(0.1, 1, V)[:, None]).requires_grad_()  # the maximum rises from block to block
    up = torch.ones(N) if upstream == "ones" else torch.randn(N, generator=g)
    logp, wanted = target_logprobs(x, w, targets), definition(x, w, targets)
    close([logp, *torch.autograd.grad(logp, (x, w), up)], [wanted, *torch.autograd.grad(wanted, (x, w), up.double())])
    with torch.no_grad():
        assert torch.equal(target_logprobs(x, w, targets), logp)


def test_target_logprobs_survive_extreme_logits():
    x, w, targets, _ = example(20, 50, scale=1e6, ignored=0)
    logp = target_logprobs(x, w, targets)
    assert all(bool(t.isfinite().all())
               for t in (logp, *torch.autograd.grad(logp.sum(), (x, w)))) and bool((logp <= 0).all())


# ---------------------------------------------------------------------- as PyTorch operations

def test_operations_are_registered_well():
    """torch.library.opcheck: schema, fake tensors, autograd, ahead-of-time dispatch."""
    q, k, v = (torch.randn(1, 5, heads, 16, requires_grad=True) for heads in (2, 1, 1))
    mask = document_mask(starts_of([[2, 3]]))
    ones = torch.ones(16, requires_grad=True)
    torch.library.opcheck(torch.ops.nanomarco.attention.default, (q, k, v, mask.starts, mask.ends))
    torch.library.opcheck(torch.ops.nanomarco.rms_norm.default, (q, q.detach().clone().requires_grad_(), ones, 1e-6))
    torch.library.opcheck(torch.ops.nanomarco.swiglu.default, (q, q.detach().clone().requires_grad_()))
    torch.library.opcheck(torch.ops.nanomarco.rope.default,
                          (q, k, torch.rand(1, 5, 1, 16), torch.rand(1, 5, 1, 16), 1.0))


@pytest.mark.parametrize("family", ["qwen2", pytest.param("qwen3", marks=pytest.mark.slow)])
def test_model(family, monkeypatch):
    """The model on the kernels, eager and with every block compiled, beside the same model on PyTorch."""
    c = ModelConfig(vocab_size=50, hidden_size=32, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2,
                    num_key_value_heads=1, model_type=family, head_dim=16)
    tokens, starts = torch.randint(50, (1, 30)), starts_of([[9, 21]])

    def run(model):
        logp = model(tokens, tokens.roll(-1, 1), starts)
        grads = torch.autograd.grad(logp.sum(), [*model.parameters()])
        return [logp, *grads]

    class Seen(TorchDispatchMode):
        names = set()

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            self.names.add(str(op))
            return op(*args, **kwargs or {})

    model = Qwen2(c).init_weights(5)
    with Seen() as seen:
        ours = run(model)
    assert {f"nanomarco.{name}.default" for name in ("attention", "rms_norm", "swiglu", "rope")} <= seen.names
    for block in model.model.layers:
        block.compile(fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(ours, run(model)))
    monkeypatch.setattr(kernels.device, "TRITON", False)
    close(ours, run(Qwen2(c).init_weights(5)))
