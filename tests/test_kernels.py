"""Attention and target log-probabilities against a naive float64 definition: values and gradients on every CPU path."""
import pytest
import torch

from kernels import attention, document_mask, most_likely, target_logprobs
from kernels.attention import attention_reference
from kernels.cross_entropy import target_logprobs_reference

# ---------------------------------------------------------------------- attention


def starts_of(rows):
    """Document lengths per row -> starts (B, T)."""
    return torch.tensor([[begin for i, n in enumerate(row) for begin in [sum(row[:i])] * n] for row in rows])


def random_rows(seed, B, T):
    """Random document lengths, mostly short, as in packed text."""
    g = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(B):
        row = []
        while sum(row) < T:
            longest = [2, 10, 40, 150, T][int(torch.randint(5, (), generator=g))]
            row.append(min(1 + int(torch.randint(longest, (), generator=g)), T - sum(row)))
        rows.append(row)
    return rows


def naive(q, k, v, starts):
    """One query at a time in float64: softmax over its own interval of keys."""
    q, k, v = q.double(), k.double(), v.double()
    B, T, H, D = q.shape
    S, group = k.shape[1], H // k.shape[2]
    out = []
    for b in range(B):
        for t in range(T):
            seen = slice(int(starts[b, t]), S - T + t + 1)
            keys, values = (x[b, seen].repeat_interleave(group, 1) for x in (k, v))  # (S', H, D)
            p = torch.softmax(torch.einsum("hd,shd->hs", q[b, t], keys) / D ** 0.5, -1)
            out.append(torch.einsum("hs,shd->hd", p, values))
    return torch.stack(out).view(B, T, H, D)


PATTERNS = {
    "one document": [[48], [48]],
    "every token its own": [[1] * 30, [1] * 30],
    "length one between": [[1, 20, 1, 1, 7], [29, 1]],
    "only one row packed": [[40], [13, 27]],
    "single token row": [[1], [1]],
    "127": [[127], [127]],
    "130": [[130], [130]],
    "200": [[200], [200]],
    "short and long together": [[127, 73], [200], [130, 1, 69], [1, 199]],
    "just around the branch": [[128, 129], [129, 128]],
    "many lengths": [[33, 32, 31, 49, 48, 47, 20], [100, 99, 61]],
    "random 0": random_rows(0, 2, 200), "random 1": random_rows(1, 3, 150), "random 2": random_rows(2, 1, 260),
}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("name", PATTERNS)
def test_attention(name, dtype, tolerance):
    starts = starts_of(PATTERNS[name])
    H, K, D = (4, 2, 8) if "random" not in name else (7, 1, 6)
    g = torch.Generator().manual_seed(len(name))
    q, k, v = (torch.randn(*starts.shape, heads, D, generator=g).to(dtype).requires_grad_() for heads in (H, K, K))
    up = torch.randn(*starts.shape, H, D, generator=g).to(dtype)
    out = attention(q, k, v, document_mask(starts))
    assert out.dtype == dtype and out.shape == q.shape
    ours = torch.autograd.grad(out, (q, k, v), up)
    wanted = naive(q, k, v, starts)
    theirs = torch.autograd.grad(wanted, (q, k, v), up.double())
    for a, b in zip([out, *ours], [wanted, *theirs]):  # root mean squares: one wrong position in 200 is already 0.07
        assert (a.double() - b.double()).norm() <= tolerance * b.double().norm()


@pytest.mark.parametrize("heads", [(4, 4), (4, 1), (14, 2)])
def test_attention_grouped_heads(heads):
    H, K = heads
    starts = starts_of([[20, 120, 10], [150]])
    q, k, v = torch.randn(2, 150, H, 4), torch.randn(2, 150, K, 4), torch.randn(2, 150, K, 4)
    torch.testing.assert_close(attention(q, k, v, document_mask(starts)), naive(q, k, v, starts).float(), atol=1e-5,
                               rtol=1e-5)


@pytest.mark.parametrize("T", [1, 3])
def test_attention_with_a_cache(T):
    """Fewer queries than keys: the queries are the last positions, and starts counts from the first key."""
    S = 9
    q, k, v = torch.randn(3, T, 4, 8), torch.randn(3, S, 2, 8), torch.randn(3, S, 2, 8)
    starts = torch.tensor([[0], [4], [S - T]]).expand(-1, T)
    torch.testing.assert_close(attention(q, k, v, document_mask(starts)), naive(q, k, v, starts).float(), atol=1e-5,
                               rtol=1e-5)


def test_attention_reference_is_the_definition():
    starts = starts_of(PATTERNS["length one between"])
    q, k, v = torch.randn(2, 30, 4, 8), torch.randn(2, 30, 2, 8), torch.randn(2, 30, 2, 8)
    torch.testing.assert_close(attention_reference(q, k, v, starts), naive(q, k, v, starts).float(), atol=1e-5,
                               rtol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_buckets_hold_every_position_once(seed):
    rows = random_rows(seed, 4, 100)
    mask = document_mask(starts_of(rows))
    if mask.buckets is None:
        assert all(len(row) == 1 for row in rows)
        return
    places = torch.cat([index[index < 400] for index in mask.buckets])
    assert sorted(places.tolist()) == list(range(400))
    for index in mask.buckets:  # a third of padding at most, but for short documents
        assert index.shape[1] <= 32 or (index < 400).sum() * 3 >= index.numel() * 2


@pytest.mark.parametrize("rows", [[[5, 30]], [[150, 30]], [[40]]])
def test_attention_survives_extreme_scores(rows):
    starts = starts_of(rows)
    T = starts.shape[1]
    q, k, v = (1e3 * torch.randn(1, T, 2, 8) for _ in range(3))  # at 1e4 the last bit of a score is up to 64
    q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    out = attention(q, k, v, document_mask(starts))
    out.sum().backward()
    assert all(bool(x.isfinite().all()) for x in (out, q.grad, k.grad, v.grad))


def test_attention_of_other_documents_does_not_leak():
    """Values of another document are never multiplied by a weight of zero: huge ones would give nan."""
    starts = starts_of([[10, 140, 20]])
    q, k, v = (torch.randn(1, 170, 2, 8) for _ in range(3))
    before = attention(q, k, v, document_mask(starts))
    for x in (q, k, v):
        x[:, 10:150] = 1e30
    after = attention(q, k, v, document_mask(starts))
    assert torch.equal(before[:, :10], after[:, :10]) and torch.equal(before[:, 150:], after[:, 150:])


# ---------------------------------------------------------------------- target log-probabilities

def example(N, V, C=16, scale=0.5, dtype=torch.float32, ignored=0.3):
    g = torch.Generator().manual_seed(N + V)
    x = torch.randn(N, C, generator=g).to(dtype).requires_grad_()
    w = (scale * torch.randn(V, C, generator=g)).requires_grad_()
    targets = torch.randint(V, (N,), generator=g)
    targets[torch.rand(N, generator=g) < ignored] = -100
    return x, w, targets, g


def definition(x, w, targets):
    logp = torch.log_softmax(x.double() @ w.to(x.dtype).double().T, -1)
    return torch.where(targets == -100, 0.0, logp.gather(1, targets.clamp(min=0)[:, None])[:, 0])


@pytest.mark.parametrize("upstream", ["ones", "one number", "uneven"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("N, V", [(40, 50), (1, 50), (450, 5000)])  # 450 tokens of 5000 words are several chunks
def test_target_logprobs(N, V, dtype, tolerance, upstream):
    x, w, targets, g = example(N, V, dtype=dtype)
    up = {"ones": torch.ones(N), "one number": torch.full((N,), -0.37), "uneven": torch.randn(N, generator=g)}[upstream]
    logp = target_logprobs(x, w, targets)
    assert logp.dtype == torch.float32 and logp.shape == (N,)
    wanted = definition(x, w, targets)
    ours = torch.autograd.grad(logp, (x, w), up)
    theirs = torch.autograd.grad(wanted, (x, w), up.double())
    assert [t.dtype for t in ours] == [x.dtype, w.dtype]
    for a, b in zip([logp, *ours], [wanted, *theirs]):
        assert (a.double() - b.double()).abs().max() <= tolerance * max(1.0, float(b.detach().abs().max()))
    assert bool((logp[targets == -100] == 0).all()) and bool((ours[0][targets == -100] == 0).all())


def test_target_logprobs_without_gradient_is_the_same():
    x, w, targets, _ = example(300, 5000)
    with torch.no_grad():
        alone = target_logprobs(x, w, targets)
    with torch.inference_mode():
        inferred = target_logprobs(x, w, targets)
    assert torch.equal(alone, target_logprobs(x, w, targets)) and torch.equal(alone, inferred)


def test_target_logprobs_of_two_backwards():
    """The stored gradients are not used up."""
    x, w, targets, _ = example(30, 50)
    loss = target_logprobs(x, w, targets).sum()
    first = torch.autograd.grad(loss, (x, w), retain_graph=True)
    second = torch.autograd.grad(loss * 2, (x, w))
    assert all(torch.equal(2 * a, b) for a, b in zip(first, second))


def test_target_logprobs_for_one_of_the_two():
    x, w, targets, _ = example(30, 50)
    both = torch.autograd.grad(target_logprobs(x, w, targets).sum(), (x, w))
    only_x, = torch.autograd.grad(target_logprobs(x, w.detach(), targets).sum(), x)
    only_w, = torch.autograd.grad(target_logprobs(x.detach(), w, targets).sum(), w)
    assert torch.equal(both[0], only_x) and torch.equal(both[1], only_w)


@pytest.mark.parametrize("N", [0, 1, 40])
def test_nothing_supervised(N):
    x, w, _, _ = example(N, 50)
    logp = target_logprobs(x, w, torch.full((N,), -100))
    assert logp.shape == (N,) and not logp.any()
    dx, dw = torch.autograd.grad(logp.sum(), (x, w))
    assert not dx.any() and not dw.any()


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_target_logprobs_survive_extreme_logits(scale, uneven):
    x, w, targets, g = example(40, 50, scale=scale, ignored=0)
    logp = target_logprobs(x, w, targets)
    up = torch.rand(40, generator=g) if uneven else torch.ones(40)
    dx, dw = torch.autograd.grad(logp, (x, w), up)
    assert all(bool(t.isfinite().all()) for t in (logp, dx, dw)) and bool((logp <= 0).all())
    torch.testing.assert_close(logp.double(), definition(x, w, targets).detach(), atol=1e-4 * scale, rtol=1e-5)


@pytest.mark.parametrize("N, V, scale", [(1, 7, 1.0), (300, 5000, 1.0), (300, 5000, 1e3), (40, 2048, 0.0)])
def test_most_likely(N, V, scale):
    """300 rows take tiles of 2,048 words; at a scale of 0 all logits are equal, and the first one counts."""
    g = torch.Generator().manual_seed(N)
    x, w = torch.randn(N, 16, generator=g), torch.randn(V, 16, generator=g) * scale
    ids, total = most_likely(x, w)
    logits = (x @ w.T).double()
    assert torch.equal(ids, logits.argmax(-1)) and (scale or not ids.any())
    torch.testing.assert_close(total.double(), logits.logsumexp(-1), atol=1e-5, rtol=1e-5)


def test_a_certain_prediction():
    """log 1 = 0 exactly, and the gradient is zero."""
    w = torch.eye(16).mul(1e4).requires_grad_()
    x = torch.eye(16).requires_grad_()
    logp = target_logprobs(x, w, torch.arange(16))
    dx, dw = torch.autograd.grad(logp.sum(), (x, w))
    assert not logp.any() and not dx.any() and not dw.any()


def test_reference_is_the_definition():
    x, w, targets, _ = example(60, 50)
    torch.testing.assert_close(target_logprobs_reference(x, w, targets).double(), definition(x, w, targets), atol=1e-5,
                               rtol=1e-5)


def test_no_gradient_no_work(monkeypatch):
    """Scoring must not pay for gradients: without them the autograd function is not entered."""
    from kernels import cross_entropy
    x, w, t = torch.randn(7, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True), torch.randint(20, (7,))
    wanted = cross_entropy.target_logprobs(x, w, t)
    monkeypatch.setattr(cross_entropy._TargetLogprobs, "forward", None)
    with torch.no_grad():
        assert torch.equal(cross_entropy.target_logprobs(x, w, t), wanted)
