"""corpus/similarity.py and recipes/embed_sentences.py: the margin is that of the definition however it is computed,
planted misalignments score below translations, and a sentence's row is the mean of its hidden states whatever stands
beside it."""
import gzip
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

import tokenizer
from corpus.similarity import auc, keep_largest, margin_scores, rank_scores, write_ranked
from model import ModelConfig, Qwen2
from recipes import embed_sentences as recipe


def brute(x, y, k=4):
    """The definition, in float64 and all at once."""
    x, y = (np.asarray(a, np.float64) / np.linalg.norm(np.asarray(a, np.float64), axis=1, keepdims=True)
            for a in (x, y))
    c, k = x @ y.T, min(k, len(x))
    return c.diagonal() / ((np.sort(c, 1)[:, -k:].mean(1) + np.sort(c, 0)[-k:].mean(0)) / 2)


def tables(kind, n, d, seed=0):
    """Aligned x, y (n, d) float32 with mostly positive cosines."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + (1.0 if d > 1 else 3.0)
    y = x + 0.5 * rng.normal(size=(n, d))
    if kind == "clusters":  # many near neighbours, and several equal rows
        x, y = (np.round(a * 2) / 2 + 0.25 for a in (x, y))
        x[n // 2:], y[n // 2:] = x[:n - n // 2], y[:n - n // 2]
    if kind == "hubs":  # a few rows that are near to everything
        x[::7], y[::5] = x.mean(0), y.mean(0)
    if kind == "scales":  # a cosine does not know lengths
        x, y = x * 10.0 ** rng.integers(-8, 8, (n, 1)), y * 10.0 ** rng.integers(-8, 8, (n, 1))
    return x.astype(np.float32), y.astype(np.float32)


# ---------------------------------------------------------------------- margin

@pytest.mark.parametrize("kind", ["random", "clusters", "hubs", "scales"])
@pytest.mark.parametrize("n, d, block", [(1, 3, 8), (2, 4, 1), (5, 8, 2), (6, 1, 4), (97, 16, 10), (300, 32, 128),
                                         (300, 32, 300),
                                         (1000, 64, 333)])
def test_margin_equals_brute_force(kind, n, d, block):
    x, y = tables(kind, n, d)
    got = margin_scores(x, y, block=block)
    assert got.dtype == np.float32 and got.shape == (n,)
    np.testing.assert_allclose(got, brute(x, y), rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 7, 50, 99])
def test_neighbours(k):
    x, y = tables("random", 50, 8)
    np.testing.assert_allclose(margin_scores(x, y, k, block=16), brute(x, y, k), rtol=1e-6, atol=1e-6)


def test_neighbours_come_from_the_whole_other_side():
    """The nearest rows of a pair may lie in any block, and are not always its partner."""
    x, y = tables("random", 64, 8)
    y[60] = x[3]  # far away in the file, and nearer to row 3 than its own partner
    with_it, without = margin_scores(x, y, 1, block=8), margin_scores(x, np.concatenate([y[:60], y[:1], y[61:]]), 1,
                                                                      block=8)
    assert with_it[3] < without[3] and brute(x, y, 1)[3] == pytest.approx(with_it[3], abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_memory_maps(tmp_path, dtype):
    x, y = (a.astype(dtype) for a in tables("random", 200, 16))
    for name, a in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", a)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"]
    np.testing.assert_array_equal(margin_scores(*mapped, block=64), margin_scores(x, y, block=64))
    np.testing.assert_allclose(margin_scores(*mapped, block=64), brute(x, y), rtol=0, atol=1e-6)


def test_the_same_again_and_for_equal_rows():
    """The same input gives the same bits; equal pairs score alike wherever they stand, but for the matrix product's
    rounding."""
    x, y = tables("random", 200, 32)
    again = np.random.default_rng(2).permutation(np.tile(np.arange(200), 2))
    got = margin_scores(x[again], y[again], block=64)
    np.testing.assert_array_equal(got, margin_scores(x[again], y[again], block=64))
    first = np.array([got[np.flatnonzero(again == i)[0]] for i in range(200)])
    np.testing.assert_allclose(got, first[again], rtol=0, atol=1e-6)
    for block in (1, 17, 100, 1024):
        np.testing.assert_allclose(margin_scores(x[again], y[again], block=block), got, rtol=0, atol=1e-6)


def test_rows_of_zeros_and_of_opposite_signs():
    """A line without a sentence is a row of zeros: it scores 0. Among few rows a pair may have no neighbour but
    opposite ones."""
    x, y = tables("random", 40, 8)
    x[7] = 0
    scores = margin_scores(x, y, block=16)
    assert scores[7] == 0 and np.isfinite(scores).all() and (np.delete(scores, 7) > 0).all()
    assert np.isfinite(margin_scores(np.array([[1.0, 0], [-1, 0]]), np.array([[-1.0, 0], [1, 0]]))).all()


def test_memory_is_bounded_by_the_block():
    x, y = tables("random", 4000, 8)
    tracemalloc.start()
    margin_scores(x, y, block=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 128 * (128 + 8) + 12 * 4000 * 4 + 300_000, peak  # the table of all cosines would be 64 MB


@pytest.mark.parametrize("call, message", [
    (lambda x: margin_scores(x, x[:3]), r"aligned rows, got shapes \(5, 2\) and \(3, 2\)"),
    (lambda x: margin_scores(x[0], x[0]), "aligned rows"),
    (lambda x: margin_scores(x, x, k=0), "k=0"), (lambda x: margin_scores(x, x, block=0), "block=0"),
    (lambda x: margin_scores(x, np.where(np.arange(5)[:, None] == 3, np.nan, x), block=2),
     "row 3 of the second table is not finite"),
    (lambda x: margin_scores(np.where(np.arange(5)[:, None] == 4, np.inf, x), x),
     "row 4 of the first table is not finite"),
    (lambda x: auc([1, 2], [1, 1]), "2 times 1 and 0 times 0"), (lambda x: auc([1, np.nan], [1, 0]), "finite"),
    (lambda x: auc([1], [1, 0]), "each label"),
    (lambda x: write_ranked("r.tsv", [1.0], ["a"], []), "r.tsv: 1 scores for 1 source and 0 target")])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((5, 2), np.float32))


def test_no_rows():
    assert margin_scores(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)).shape == (0,)


def test_largest():
    rng = np.random.default_rng(0)
    for held, new, k in ((5, 3, 5), (2, 40, 2), (4, 4, 4), (1, 1, 1)):
        a, b = rng.integers(0, 9, (6, held)).astype(np.float32), rng.integers(0, 9, (6, new)).astype(np.float32)
        np.testing.assert_array_equal(np.sort(keep_largest(a, b), 1), np.sort(np.concatenate([a, b], 1), 1)[:, -k:])


# ---------------------------------------------------------------------- planted misalignments

def planted(n=600, meaning=24, d=96, noise=0.6, share=0.2, seed=0):
    """Two languages that see the same meanings, each through a random projection of its own on top of a shared one,
    both with hubs and a direction of their own: (x, y, labels), a share of the rows not aligned."""
    rng = np.random.default_rng(seed)
    m, shared = rng.normal(size=(n, meaning)), rng.normal(size=(meaning, d))
    m[rng.random(n) < 0.1] *= 0.3  # vague sentences: near to everything
    sides = [m @ (shared + 0.4 * rng.normal(size=(meaning, d))) + noise * meaning ** 0.5 * rng.normal(size=(n, d))
             + 6 * rng.normal(size=d) for _ in range(2)]
    wrong = rng.permutation(n)[:int(n * share)]
    order = np.arange(n)
    order[wrong] = np.roll(wrong, 1)
    return sides[0].astype(np.float32), sides[1][order].astype(np.float32), order == np.arange(n)


@pytest.mark.parametrize("seed", range(4))
def test_planted_misalignments_score_below(seed):
    x, y, labels = planted(seed=seed)
    assert auc(margin_scores(x - x.mean(0), y - y.mean(0), block=128), labels) >= 0.95


def test_the_margin_beats_the_cosine_where_there_are_hubs():
    """Topics of different density: in a dense one, wrong pairs have higher cosines than good ones elsewhere."""
    rng = np.random.default_rng(0)
    topic = rng.normal(size=(6, 64)) * np.array([0, 1, 2, 4, 6, 8])[:, None]
    at = rng.integers(0, 6, 900)
    m = topic[at] + rng.normal(size=(900, 64))
    x, y = (m + 0.6 * rng.normal(size=m.shape) for _ in range(2))
    labels = rng.random(900) > 0.3
    for t in range(6):  # misaligned within the topic
        rows = np.flatnonzero((at == t) & ~labels)
        y[rows] = y[np.roll(rows, 1)]
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert auc(margin_scores(x, y), labels) > 0.97 and auc(cosine, labels) < auc(margin_scores(x, y), labels) - 0.1


# ---------------------------------------------------------------------- ranks

def test_auc_equals_counting():
    rng = np.random.default_rng(1)
    for n in (2, 5, 60):
        scores, labels = rng.integers(0, 6, n) / 7, np.arange(n) % 3 > 0
        rng.shuffle(labels)
        if labels.all() or not labels.any():
            continue
        pairs = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
        assert auc(scores, labels) == pytest.approx(np.mean(pairs))
        assert auc(-scores, labels) == pytest.approx(1 - np.mean(pairs))
    assert auc([0.1, 0.9], [0, 1]) == 1 and auc([0.5, 0.5], [0, 1]) == 0.5


def test_rank():
    assert rank_scores([0.5, 0.9, 0.5, np.nan, 0.9, -1]).tolist() == [1, 4, 0, 2, 5, 3]
    assert rank_scores([]).tolist() == []
    assert rank_scores(np.arange(300) // 100).tolist() == [*range(200, 300), *range(100, 200), *range(100)]


def test_ranked_list(tmp_path):
    path = tmp_path / "r.tsv"
    write_ranked(path, np.array([0.9, 1.25, 0.9], np.float32), ["a\tb", "c", "d\n e"], ["x", "y\u2028 z", "w"])
    assert path.read_text(encoding="utf-8") == "1.2500\tc\ty z\n0.9000\ta b\tx\n0.9000\td e\tw\n"
    assert [p.name for p in tmp_path.iterdir()] == ["r.tsv"]


# ---------------------------------------------------------------------- sentences -> vectors

TEXTS = ["The river flows past the old town.", "Өзен ескі қала арқылы ағады.", "", "One", "河流流过古城。",
         "The bridge over the river is old.  ", "  \t", "no 1,000"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model of three layers with a tokenizer of its own."""
    out = tmp_path_factory.mktemp("model")
    tokenizer.train((TEXTS + [f"word {i} of a text and another {i * 7}" for i in range(300)]) * 2, 420, out)
    config = ModelConfig(vocab_size=tokenizer.load(out).vocab_size, hidden_size=32, intermediate_size=48,
                         num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
                         max_position_embeddings=64)
    Qwen2(config).init_weights(5).save_pretrained(out)
    return out


def embed(folder, tmp_path, text, **more):
    path, out = tmp_path / "text.tsv", tmp_path / "out.npy"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    recipe.main([f"{k}={v}" for k, v in dict(model=folder, text=path, out=out, **more).items()])
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("out")) == ["out.npy"]
    return np.load(out, mmap_mode="r")


def slow(folder, texts, layer, center):
    """One sentence at a time, in float64."""
    t, model = tokenizer.load(folder), Qwen2.from_pretrained(folder).eval()
    rows = np.zeros((len(texts), model.config.hidden_size))
    for i, text in enumerate(texts):
        if text.strip():
            with torch.inference_mode():
                streams = model.residual_streams(torch.tensor([[t.prefix_token_id, *t.encode(text.strip())]]))
            rows[i] = streams[layer][0, 1:].double().mean(0).numpy()
    full = rows.any(1)
    rows[full] -= rows[full].mean(0) if center else 0
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


@pytest.mark.parametrize("layer, center, batch_tokens",
                         [(0, False, 8192), (1, True, 8192), ("middle", True, 9), (2, False, 1),
                                                         (3, True, 30)])
def test_rows_are_means_of_hidden_states(folder, tmp_path, layer, center, batch_tokens):
    got = embed(folder, tmp_path, "\n".join(TEXTS), layer=layer, center=center, batch_tokens=batch_tokens)
    lines = [line.split("\t")[0] for line in TEXTS]
    assert got.dtype == np.float16 and got.shape == (len(TEXTS), 32) and not got[2].any() and not got[6].any()
    np.testing.assert_allclose(got, slow(folder, lines, 1 if layer == "middle" else layer, center), rtol=0, atol=1e-3)


def test_batches_are_filled(folder, tmp_path):
    (tmp_path / "a.txt").write_text("word 1\n" * 50)
    t = tokenizer.load(folder)
    each = len(t.encode("word 1")) + 1
    for batch_tokens, wanted in ((8192, [50]), (20 * each, [20, 20, 10]), (1, [1] * 50)):
        c = recipe.Embed(model="", text=str(tmp_path / "a.txt"), out="x.npy", batch_tokens=batch_tokens)
        assert [len(ids) for _, ids in recipe.batches(c, t)] == wanted


def test_columns_and_compressed_files(folder, tmp_path):
    rows = [(a, b) for a, b in zip(TEXTS, TEXTS[::-1]) if a.strip() and b.strip()]
    left = embed(folder, tmp_path, "".join(f"{a}\t{b}\n" for a, b in rows) + "only one column\n")[:len(rows)].copy()
    right = embed(folder, tmp_path, None, column=1)
    assert right.shape == (len(rows) + 1, 32) and not right[-1].any()
    np.testing.assert_array_equal(right[:-1], embed(folder, tmp_path, "".join(f"{b}\n" for _, b in rows)))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("".join(f"{a}\n" for a, _ in rows).encode() + b"\xff\n"))
    recipe.main([f"model={folder}", f"text={tmp_path / 'a.txt.gz'}", f"out={tmp_path / 'new/z.npy'}", "center=False"])
    assert not np.load(tmp_path / "new/z.npy")[-1].any() and len(left) == len(rows)


def test_long_sentences_are_cut(folder, tmp_path):
    long, t = "word 17 of a text " * 9, tokenizer.load(folder)
    got = embed(folder, tmp_path, f"{long}\nword\n", max_tokens=12, center=False)
    tokens = torch.tensor([[t.prefix_token_id, *t.encode(long.strip())[:12]]])
    with torch.inference_mode():
        wanted = Qwen2.from_pretrained(folder).residual_streams(tokens)[1][0, 1:].mean(0)
    np.testing.assert_allclose(got[0], wanted / wanted.norm(), atol=1e-3)


def test_large_states_do_not_overflow(folder, tmp_path):
    """Hidden states of real models reach 10,000 and more, float16 ends at 65,504: rows are made 1 long before they are
    stored."""
    model = Qwen2.from_pretrained(folder)
    model.model.embed_tokens.weight.data *= 1e6
    big = tmp_path / "big"
    model.save_pretrained(big, like=folder, tokenizer=folder)
    rows = embed(big, tmp_path, "\n".join(TEXTS[:2]), layer=0)
    assert np.isfinite(rows).all() and np.allclose(np.linalg.norm(rows.astype(np.float32), axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("change, message", [
    (dict(layer=9), "layer=9: the model has 3"), (dict(layer=-1), "layer must be"),
    (dict(layer="top"), "layer must be a number or middle, got 'top'"), (dict(column=-1), "column must be at least 0"),
    (dict(batch_tokens=0), "batch_tokens must be at least 1"), (dict(text="none.tsv"), "none.tsv: no such file"),
    (dict(out="x.bin"), "out must end in .npy"), (dict(dtype="int8"), "dtype must be"),
    (dict(model="nowhere"), "nowhere")])
def test_bad_settings(folder, tmp_path, change, message):
    (tmp_path / "a.txt").write_text("word\n")
    settings = dict(model=folder, text=tmp_path / "a.txt", out=tmp_path / "o.npy") | change
    with pytest.raises(ValueError, match=message):
        recipe.main([f"{k}={v}" for k, v in settings.items()])
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="a.txt is empty"):
        recipe.main([f"model={folder}", f"text={tmp_path / 'a.txt'}", f"out={tmp_path / 'o.npy'}"])


def test_command_line(folder, tmp_path, root):
    (tmp_path / "a.tsv").write_text("word\tword 3\nthe river\tthe old river\n")
    words = [f"model={folder}", f"text={tmp_path / 'a.tsv'}", f"out={tmp_path / 'a.npy'}", "column=1"]
    program = [sys.executable, root / "recipes/embed_sentences.py"]
    run = subprocess.run([*program, *words], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{tmp_path / 'a.npy'}: 2 rows of 32 numbers, layer 1 of 3, 0 without a sentence\n"
    assert np.load(tmp_path / "a.npy").shape == (2, 32)
