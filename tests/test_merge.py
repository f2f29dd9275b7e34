"""recipes/merge_weights.py: every method against its formula, heads and vocabularies that differ, what is refused."""
import json
import math

import pytest
import torch

from hf.weights import StoredTensor, open_weights
from model import ModelConfig, Qwen2
from recipes import merge_weights as recipe

tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("on_the_cpu")

SHAPE = dict(vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1)


def write_model(folder, seed, dtype=torch.float32, added=(), **changes):
    """A random model with a byte-level tokenizer of 257 ids and the added tokens; other rows are padding."""
    Qwen2(ModelConfig(**SHAPE | changes)).init_weights(seed).to(dtype).save_pretrained(folder)
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocab={c: i for i, c in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\s+|\S+"), "isolated")
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [split, tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False)])
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.add_special_tokens(["<|endoftext|>"])
    bpe.add_tokens(list(added))
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    return folder


def merge(out, models, **settings):
    words = {"models": [str(folder) for folder in models], "out": str(out)} | settings
    recipe.main([f"{key}={value}" if isinstance(value, str) else f"{key}={value!r}" for key, value in words.items()])
    return read(out)


def read(folder):
    return {name: stored.read() for name, stored in open_weights(folder).items()}


@pytest.fixture
def two(tmp_path):
    return write_model(tmp_path / "a", 1), write_model(tmp_path / "b", 2)


# ---------------------------------------------------------------------- the methods

@pytest.mark.parametrize("weights, expected", [([0.25, 0.75], (0.25, 0.75)), (None, (0.5, 0.5)), ([1.0, 0.0], (1, 0))])
def test_linear(tmp_path, two, weights, expected):
    a, b, merged = read(two[0]), read(two[1]), merge(tmp_path / "out", two, weights=weights)
    assert set(merged) == set(a)
    for name in a:
        torch.testing.assert_close(merged[name], expected[0] * a[name] + expected[1] * b[name], atol=1e-7, rtol=1e-6)
    if expected == (1, 0):
        assert all(torch.equal(merged[name], a[name]) for name in a)
    model = Qwen2.from_pretrained(tmp_path / "out")
    assert torch.equal(model.model.norm.weight, merged["model.norm.weight"])


def test_task_arithmetic(tmp_path, two):
    base = write_model(tmp_path / "base", 3)
    merged = merge(tmp_path / "out", two, method="task_arithmetic", base=str(base), weights=[0.5, -0.3])
    a, b, o = read(two[0]), read(two[1]), read(base)
    for name in o:
        expected = o[name] + 0.5 * (a[name] - o[name]) - 0.3 * (b[name] - o[name])
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=1e-5)
    same = merge(tmp_path / "same", two[:1], method="task_arithmetic", base=str(base))  # weight 1: the model itself
    assert all(torch.equal(same[name], a[name]) for name in a)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp(tmp_path, two, t):
    a, b = read(two[0]), read(two[1])
    merged = merge(tmp_path / "out", two, method="slerp", weights=[1 - t, t])
    for name in a:
        x, y = a[name].flatten().double(), b[name].flatten().double()
        if torch.equal(x, y) or not x.any() or not y.any():  # norms begin as ones, biases as zeros
            expected = (1 - t) * x + t * y
        else:
            angle = math.acos(float(x @ y / x.norm() / y.norm()))
            expected = (math.sin((1 - t) * angle) * x + math.sin(t * angle) * y) / math.sin(angle)
        torch.testing.assert_close(merged[name].flatten().double(), expected, atol=1e-6, rtol=1e-5)
    if t == 0.3:  # on the arc: two vectors of one length keep it, which the mean does not
        name = "model.layers.0.mlp.up_proj.weight"
        straight = 0.7 * a[name] + 0.3 * b[name]
        assert straight.norm() < 0.9 * a[name].norm() < 0.95 * merged[name].norm()


def test_blocks_of_rows_give_the_same_tensors_and_bound_what_is_read(tmp_path, two, monkeypatch):
    results, sizes, whole = {}, [], StoredTensor.read

    def counted(self, *rows):
        out = whole(self, *rows)
        sizes.append(out.numel())
        return out

    monkeypatch.setattr(StoredTensor, "read", counted)
    for block in (1 << 24, 64):
        monkeypatch.setattr(recipe, "BLOCK", block)
        sizes.clear()
        for method in ("linear", "slerp"):
            recipe.main([f"models={[str(x) for x in two]}", f"out={tmp_path}/{method}{block}", f"method={method}"])
            results[method, block] = sorted((tmp_path / f"{method}{block}").glob("*.safetensors"))
    assert max(sizes) <= 64  # the widest row has 24 elements
    monkeypatch.undo()
    for method in ("linear", "slerp"):
        a, b = (read(results[method, block][0].parent) for block in (1 << 24, 64))
        assert all(torch.allclose(a[name], b[name], atol=1e-7) for name in a)


def test_bfloat16_is_merged_in_float32(tmp_path):
    models = [write_model(tmp_path / str(i), i, torch.bfloat16) for i in range(3)]
    merged = merge(tmp_path / "out", models)
    name = "model.layers.1.self_attn.q_proj.weight"
    exact = sum(1 / 3 * read(folder)[name].float() for folder in models)
    assert merged[name].dtype == torch.bfloat16 and torch.equal(merged[name], exact.bfloat16())
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert "bfloat16" in (config.get("dtype"), config.get("torch_dtype"))


# ---------------------------------------------------------------------- heads and vocabularies

def test_a_tied_head_counts_as_the_embedding(tmp_path):
    tied, untied = write_model(tmp_path / "a", 1), write_model(tmp_path / "b", 2, tie_word_embeddings=False)
    merged = merge(tmp_path / "out", [tied, untied], weights=[0.25, 0.75])
    a, b = read(tied), read(untied)
    embedding, head = recipe.EMBEDDING, recipe.HEAD
    assert head not in a
    torch.testing.assert_close(merged[embedding], 0.25 * a[embedding] + 0.75 * b[embedding])
    torch.testing.assert_close(merged[head], 0.25 * a[embedding] + 0.75 * b[head])
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(Qwen2.from_pretrained(tmp_path / "out").lm_head.weight, merged[head])


def test_tied_models_stay_tied_even_if_one_stores_the_head_too(tmp_path, two):
    from safetensors.torch import save_file
    tensors = read(two[1])
    file = two[1] / "model.safetensors"
    save_file(tensors | {recipe.HEAD: tensors[recipe.EMBEDDING].clone()}, file, {"format": "pt"})
    merged = merge(tmp_path / "out", two)
    assert recipe.HEAD not in merged and json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"]
    save_file(tensors | {recipe.HEAD: 2 * tensors[recipe.EMBEDDING]}, file, {"format": "pt"})
    merged = merge(tmp_path / "out2", two)  # a head of its own, whatever config.json says
    expected = (read(two[0])[recipe.EMBEDDING] + 2 * tensors[recipe.EMBEDDING]) / 2
    torch.testing.assert_close(merged[recipe.HEAD], expected)


@pytest.mark.parametrize("method", ["linear", "slerp", "task_arithmetic"])
@pytest.mark.parametrize("swap", [False, True])
def test_an_extended_vocabulary(tmp_path, method, swap):
    """257 + 20 ids in one, 257 + 60 in the other: rows 277 to 316 are tokens of one only; both have rows there."""
    small = write_model(tmp_path / "small", 1, added=[f"<{i}>" for i in range(20)])
    large = write_model(tmp_path / "large", 2, added=[f"<{i}>" for i in range(60)], vocab_size=340)
    models = [large, small] if swap else [small, large]
    settings = dict(method=method, base=str(small), weights=[1.0]) if method == "task_arithmetic" else \
        dict(method=method, weights=[0.5, 0.5])
    merged = merge(tmp_path / "out", [large] if method == "task_arithmetic" else models, **settings)[recipe.EMBEDDING]
    a, b = read(small)[recipe.EMBEDDING], read(large)[recipe.EMBEDDING]
    assert merged.shape == (340, 16)
    assert torch.equal(merged[277:], b[277:])  # the new tokens, and padding that only the larger model has
    if method == "linear":
        torch.testing.assert_close(merged[:277], (a[:277] + b[:277]) / 2)
    else:
        assert torch.equal(merged[:277], b[:277]) == (method == "task_arithmetic")
    out = tmp_path / "out"
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 340
    assert (out / "tokenizer.json").read_bytes() == (large / "tokenizer.json").read_bytes()


# ---------------------------------------------------------------------- what is refused

@pytest.mark.parametrize("changes, message", [
    (dict(rope_theta=1e4), "rope_theta is 1000000.0 and 10000.0"),
    (dict(num_hidden_layers=3), "num_hidden_layers is 2 and 3"), (dict(hidden_size=32), "hidden_size is 16 and 32"),
    (dict(model_type="llama"), "model_type is 'qwen2' and 'llama'"),
    (dict(added=["<x>"]), None), (dict(vocab_size=400), None)])
def test_unlike_models(tmp_path, changes, message):
    models = [write_model(tmp_path / "a", 1), write_model(tmp_path / "b", 2, **changes)]
    if message is None:
        assert merge(tmp_path / "out", models)
        return
    with pytest.raises(ValueError, match=f"a and .*b cannot be merged: {message}"):
        merge(tmp_path / "out", models)
    assert not (tmp_path / "out").exists()


def test_tokenizers_that_disagree(tmp_path):
    models = [write_model(tmp_path / name, 1, added=["<x>", f"<{name}>"]) for name in "ab"]
    with pytest.raises(ValueError, match=r"id 258 is b'<a>' and b'<b>' \(1 ids differ\)"):
        merge(tmp_path / "out", models)
    (models[0] / "tokenizer.json").unlink()
    assert merge(tmp_path / "out", models)  # rows alike: without one tokenizer they are taken to be the same tokens
    with pytest.raises(ValueError, match="300 and 310 rows, and without the tokenizers of both it is not known"):
        merge(tmp_path / "out", [models[0], write_model(tmp_path / "c", 3, vocab_size=310)])


def test_a_tensor_too_many_and_one_that_is_not_finite(tmp_path, two):
    from safetensors.torch import save_file
    tensors = read(two[1])
    save_file(tensors | {"model.layers.0.extra.weight": torch.ones(2)}, two[1] / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"only one of them has model.layers.0.extra.weight \(1 such"):
        merge(tmp_path / "out", two)
    tensors["model.norm.weight"][3] = math.nan
    save_file(tensors, two[1] / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="b: model.norm.weight holds NaN or infinity in rows 0 to 15"):
        merge(tmp_path / "out", two)


@pytest.mark.parametrize("settings, message", [
    (dict(method="ties"), "method must be linear, task_arithmetic or slerp, got 'ties'"),
    (dict(weights=[1.0]), "weights must be 2 finite numbers"), (dict(weights=[0.7, 0.7]), "sum to 1"),
    (dict(weights=[1.5, -0.5]), "positive and sum to 1"), (dict(base="x"), "base= is the original model"),
    (dict(method="task_arithmetic"), "base= is the original model"),
    (dict(models=["a"]), "needs two or more models, got 1"),
    (dict(method="slerp", models=["a", "b", "c"]), "needs two models, got 3"),
    (dict(out="a"), "out=a is one of the models")])
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        recipe.Merge(**dict(models=["a", "b"], out="c") | settings)
