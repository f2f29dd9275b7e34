"""The model against transformers' Qwen2, Llama and Qwen3, against itself (packed, cached, generated); its folder."""
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from generate import generate
from model import IGNORE, KVCache, ModelConfig, Qwen2

transformers = pytest.importorskip("transformers")

TINY = ModelConfig(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                   num_key_value_heads=2, max_position_embeddings=512, rope_theta=10000.0)
RATIOS = {1: (4, 4, 32), 2: (4, 2, 32), 4: (4, 1, 32), 7: (7, 1, 56)}  # query heads per key head: H, K, C


def tiny(seed=0, dtype=torch.float32, **changes):
    """A model whose biases, norms and matrices all matter."""
    model = Qwen2(replace(TINY, **changes), dtype).init_weights(seed)
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.15 * torch.randn(p.shape, generator=g)
    return model


def ids(B, T, seed=0, V=97):
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def logits_of(model, tokens, starts=None):
    """Logits at every position, (B, T, V)."""
    return model.lm_head(model.hidden_states(tokens, starts)).float()


def hf_load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def pack(documents):
    """Pack documents into one row -> tokens, targets, starts (1, T); the last token of each predicts nothing."""
    tokens = torch.cat(documents)[None]
    targets = torch.cat([torch.cat([d[1:], torch.tensor([IGNORE])]) for d in documents])[None]
    begin = [sum(len(d) for d in documents[:i]) for i in range(len(documents))]
    starts = torch.cat([torch.full((len(d),), b) for d, b in zip(documents, begin)])[None]
    return tokens, targets, starts


# ---------------------------------------------------------------------- against transformers

def same_as_transformers(ours, theirs):
    for T in (1, 40, 150):  # both forms of dense attention
        tokens, targets = ids(2, T, seed=T), ids(2, T, seed=T + 1)
        with torch.no_grad():
            wanted = theirs(tokens).logits
            logp = ours(tokens, targets)
        assert (ours.logits(tokens) - wanted[:, -1]).abs().max() <= 1e-4
        assert (logits_of(ours, tokens) - wanted).abs().max() <= 1e-4
        wanted = torch.log_softmax(wanted, -1).gather(2, targets[..., None])[..., 0]
        assert logp.dtype == torch.float32 and (logp - wanted).abs().max() <= 1e-4


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ratio", RATIOS)
def test_our_folder_in_transformers(tmp_path, ratio, tied):
    H, K, C = RATIOS[ratio]
    ours = tiny(ratio, num_attention_heads=H, num_key_value_heads=K, hidden_size=C, tie_word_embeddings=tied)
    ours.save_pretrained(tmp_path)
    theirs = hf_load(tmp_path)
    assert type(theirs).__name__ == "Qwen2ForCausalLM" and theirs.config.tie_word_embeddings == tied
    same_as_transformers(ours, theirs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ratio", RATIOS)
def test_transformers_folder_in_ours(tmp_path, ratio, tied):
    H, K, C = RATIOS[ratio]
    config = transformers.Qwen2Config(vocab_size=97, hidden_size=C, intermediate_size=40, num_hidden_layers=3,
                                      num_attention_heads=H, num_key_value_heads=K, tie_word_embeddings=tied,
                                      rms_norm_eps=1e-5, initializer_range=0.2,
                                      rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    torch.manual_seed(ratio)
    theirs = transformers.Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            if p.ndim == 1:
                p += 0.3 * torch.randn(p.shape)
    theirs.save_pretrained(tmp_path)
    ours = Qwen2.from_pretrained(tmp_path)
    assert ours.config.rope_theta == 5000.0 and ours.config.tie_word_embeddings == tied
    same_as_transformers(ours, theirs)


# ---------------------------------------------------------------------- families

# The pairs of head size 8 rotate once in 6, 63, 628 and 6283 positions: the first is kept, the second interpolated, the
# others slowed down.
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 128}
FAMILIES = {"qwen2": ("Qwen2", {}), "llama": ("Llama", {}), "llama-bias": ("Llama", {"attention_bias": True}),
            "llama3": ("Llama", {"rope_parameters": LLAMA3}), "llama-head-dim": ("Llama", {"head_dim": 12}),
            "qwen3": ("Qwen3", {"head_dim": 16}), "qwen3-bias": ("Qwen3", {"head_dim": 8, "attention_bias": True})}
each_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that makes transformers' tiny random model of a family and the folder it saved."""
    known = {}

    def make(family, ratio=4, tied=False):
        if (family, ratio, tied) not in known:
            name, own = FAMILIES[family]
            H, K, C = RATIOS[ratio]
            rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
            config = getattr(transformers, f"{name}Config")(**{
                "vocab_size": 97, "hidden_size": C, "intermediate_size": 40, "num_hidden_layers": 3,
                "num_attention_heads": H, "num_key_value_heads": K, "tie_word_embeddings": tied,
                "rms_norm_eps": 1e-5, "initializer_range": 0.2, "max_position_embeddings": 512} | rope | own)
            torch.manual_seed(ratio)
            theirs = getattr(transformers, f"{name}ForCausalLM")(config).eval()
            with torch.no_grad():
                for p in theirs.parameters():
                    if p.ndim == 1:
                        p += 0.3 * torch.randn(p.shape)
            folder = tmp_path_factory.mktemp(family)
            theirs.save_pretrained(folder)
            known[family, ratio, tied] = theirs, folder
        return known[family, ratio, tied]
    return make


def near(ours, wanted):
    """Whether the difference is within 1e-4 of the largest expected value."""
    return ours.dtype == torch.float32 and bool((ours - wanted).abs().max() <= 1e-4 * wanted.abs().max())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ratio", [1, 4, 7])
@each_family
def test_families_give_the_logits_of_transformers(made, family, ratio, tied):
    theirs, folder = made(family, ratio, tied)
    ours = Qwen2.from_pretrained(folder)
    assert ours.config.model_type == theirs.config.model_type
    for T in (1, 40, 150):  # both forms of dense attention, and positions beyond Llama 3's original length
        tokens, targets = ids(2, T, seed=T), ids(2, T, seed=T + 1)
        with torch.no_grad():
            wanted = theirs(tokens).logits
            assert near(logits_of(ours, tokens), wanted) and near(ours.logits(tokens), wanted[:, -1])
            wanted = torch.log_softmax(wanted, -1).gather(2, targets[..., None])[..., 0]
            assert near(ours(tokens, targets), wanted)


@each_family
def test_families_packed(made, family):
    """Documents packed into a row, against transformers on each alone."""
    theirs, folder = made(family)
    ours = Qwen2.from_pretrained(folder)
    documents = [ids(1, n, seed=i)[0] for i, n in enumerate((5, 1, 30, 140, 2))]
    tokens, _, starts = pack(documents)
    with torch.no_grad():
        assert near(logits_of(ours, tokens, starts), torch.cat([theirs(d[None]).logits for d in documents], 1))


@pytest.mark.parametrize("pieces", [[1] * 9, [30, 1, 1, 100], [131, 1]], ids=str)
@each_family
def test_families_with_a_cache(made, family, pieces):
    """In pieces, with rows padded on the left, against transformers on each whole row alone."""
    theirs, folder = made(family)
    ours, total = Qwen2.from_pretrained(folder), sum(pieces)
    tokens, padding = ids(3, total), (0, 2, 7)
    starts = torch.tensor(padding)[:, None].expand(-1, total)
    cache, done = KVCache(ours, 3, total), 0
    with torch.no_grad():
        wanted = [theirs(tokens[b:b + 1, n:]).logits[0] for b, n in enumerate(padding)]
        for n in pieces:
            logits = ours.logits(tokens[:, done:done + n], starts[:, done:done + n], cache)
            done += n
            for b, hidden in enumerate(padding):
                if done > hidden:
                    assert near(logits[b], wanted[b][done - 1 - hidden])


@pytest.mark.parametrize("ratio", [1, 7])
@each_family
def test_families_in_bfloat16(made, tmp_path, family, ratio):
    """Against the same bfloat16 weights computed in float32; the error of transformers' bfloat16 sets the tolerance."""
    theirs, folder = made(family, ratio)
    Qwen2.from_pretrained(folder).save_pretrained(tmp_path, dtype=torch.bfloat16)
    load = transformers.AutoModelForCausalLM.from_pretrained
    ours, tokens = Qwen2.from_pretrained(tmp_path, torch.bfloat16), ids(4, 150)
    with torch.no_grad():
        truth = load(tmp_path, dtype=torch.float32)(tokens).logits
        rounding = (load(tmp_path, dtype=torch.bfloat16)(tokens).logits.float() - truth).norm()
        assert (truth - theirs(tokens).logits).norm() > 0  # the weights have been rounded
        assert 0 < (logits_of(ours, tokens) - truth).norm() <= 1.5 * rounding
        documents = [d[:n] for d, n in zip(tokens, (5, 1, 60, 140))]
        packed, _, starts = pack(documents)
        truth = torch.cat([truth[i:i + 1, :len(d)] for i, d in enumerate(documents)], 1)
        rounding *= (truth.shape[1] / tokens.numel()) ** 0.5
        assert 0 < (logits_of(ours, packed, starts) - truth).norm() <= 1.5 * rounding


@pytest.mark.parametrize("tied", [True, False])
@each_family
def test_families_round_trip(made, tmp_path, family, tied):
    """transformers loads what we save of what it saved: no tensor missing or left over, every bit and logit equal."""
    theirs, folder = made(family, 4, tied)
    ours = Qwen2.from_pretrained(folder)
    ours.save_pretrained(tmp_path, max_bytes=10_000)
    back, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32,
                                                                   output_loading_info=True)
    assert type(back) is type(theirs)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    wanted = theirs.state_dict()
    assert back.state_dict().keys() == wanted.keys()
    assert all(torch.equal(t, wanted[n]) for n, t in back.state_dict().items())
    with torch.no_grad():
        assert torch.equal(back(ids(2, 150)).logits, theirs(ids(2, 150)).logits)
    for name in ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                 "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings",
                 "max_position_embeddings", "rope_parameters"):
        assert getattr(back.config, name) == getattr(theirs.config, name), name
    again = Qwen2.from_pretrained(tmp_path)
    assert equal_weights(ours, again) and again.config == ours.config


@pytest.mark.parametrize("tied", [True, False])
@each_family
def test_families_from_fresh_weights(tmp_path, family, tied):
    """Our fresh weights in transformers."""
    name, own = FAMILIES[family]
    own = dict(own)
    if "rope_parameters" in own:
        scaling = {k: v for k, v in LLAMA3.items() if k not in ("rope_type", "rope_theta")}
        own = {"rope_theta": LLAMA3["rope_theta"], "rope_scaling": scaling}
    ours = tiny(model_type=name.lower(), tie_word_embeddings=tied, **own)
    ours.save_pretrained(tmp_path)
    theirs = hf_load(tmp_path)
    assert type(theirs).__name__ == f"{name}ForCausalLM" and theirs.config.tie_word_embeddings == tied
    with torch.no_grad():
        assert near(logits_of(ours, ids(2, 150)), theirs(ids(2, 150)).logits)
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}


@each_family
def test_gradients_of_families_equal_transformers(made, family):
    theirs, folder = made(family)
    ours, tokens = Qwen2.from_pretrained(folder), ids(2, 30)
    targets = torch.cat([tokens[:, 1:], torch.full((2, 1), IGNORE)], 1)
    (-ours(tokens, targets).sum() / (targets != IGNORE).sum()).backward()
    theirs.zero_grad()
    theirs(tokens, labels=tokens).loss.backward()
    wanted = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        assert (p.grad - wanted[name].grad).norm() <= 1e-4 * wanted[name].grad.norm(), name


def test_config_of_the_published_qwen2(tmp_path):
    """The fields of Qwen2-0.5B's config.json, where rope_theta is at the top level."""
    published = {"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
                 "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
                 "intermediate_size": 4864, "max_position_embeddings": 131072, "max_window_layers": 24,
                 "model_type": "qwen2", "num_attention_heads": 14,
                 "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
                 "sliding_window": 131072, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
                 "use_sliding_window": False, "vocab_size": 151936}
    (tmp_path / "config.json").write_text(json.dumps(published))
    c = ModelConfig.from_pretrained(tmp_path)
    assert (c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_size) == (896, 14, 2, 64)
    assert (c.rope_theta, c.vocab_size, c.tie_word_embeddings, c.num_hidden_layers) == (1e6, 151936, True, 24)


@pytest.mark.parametrize("change", [{"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, {"hidden_act": "gelu"},
                                    {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
                                    {"use_sliding_window": True}])
def test_what_is_not_implemented_is_refused(tmp_path, change):
    """Each of these would load, run, and compute something else than transformers."""
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match="config.json"):
        Qwen2.from_pretrained(tmp_path)


def test_residual_streams(tmp_path):
    ours = tiny(num_hidden_layers=3)
    ours.save_pretrained(tmp_path)
    tokens = ids(2, 20)
    streams = ours.residual_streams(tokens)
    assert len(streams) == 4 and all(s.shape == (2, 20, 32) for s in streams)
    # the last of theirs is after the final norm
    wanted = hf_load(tmp_path)(tokens, output_hidden_states=True).hidden_states
    for a, b in zip(streams[:-1] + [ours.hidden_states(tokens)], wanted):
        assert (a - b).abs().max() <= 1e-4
    assert torch.equal(ours.model.norm(streams[-1]), ours.hidden_states(tokens))


def test_gradients_equal_transformers(tmp_path):
    ours = tiny()
    ours.save_pretrained(tmp_path)
    theirs, tokens = hf_load(tmp_path), ids(2, 30)
    targets = torch.cat([tokens[:, 1:], torch.full((2, 1), IGNORE)], 1)
    (-ours(tokens, targets).sum() / (targets != IGNORE).sum()).backward()
    theirs(tokens, labels=tokens).loss.backward()
    wanted = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        assert (p.grad - wanted[name].grad).abs().max() <= 1e-4, name


# ---------------------------------------------------------------------- packing and targets

LENGTHS = [[1], [40], [150], [1, 1, 1], [5, 1, 30, 1], [129, 3, 128, 1, 20], [33, 32, 31, 60]]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_packed_row_equals_each_document_alone(lengths):
    model = tiny()
    documents = [ids(1, n, seed=i)[0] for i, n in enumerate(lengths)]
    tokens, targets, starts = pack(documents)
    with torch.no_grad():
        whole, logp = logits_of(model, tokens, starts), model(tokens, targets, starts)
        alone = [logits_of(model, d[None]) for d in documents]
        own = [model(*pack([d])) for d in documents]
    assert (whole - torch.cat(alone, 1)).abs().max() <= 1e-5
    assert (logp - torch.cat(own, 1)).abs().max() <= 1e-5


def test_packed_gradients_equal_the_sum_of_each_alone():
    model = tiny()
    documents = [ids(1, n, seed=n)[0] for n in (7, 1, 140, 31)]
    model(*pack(documents)).sum().backward()
    packed = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    for d in documents:
        model(*pack([d])).sum().backward()
    for name, p in model.named_parameters():
        assert (packed[name] - p.grad).norm() <= 1e-5 * p.grad.norm(), name


def test_activation_checkpointing_changes_nothing():
    tokens, targets, starts = pack([ids(1, n, seed=n)[0] for n in (7, 30)])
    grads = []
    for activation_checkpointing in (False, True):
        model = tiny()
        model.activation_checkpointing = activation_checkpointing
        model(tokens, targets, starts).sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_ignored_targets_are_zero_and_send_no_gradient():
    model, tokens, targets = tiny(), ids(2, 12), ids(2, 12, seed=1)
    targets[0, 3:] = IGNORE
    targets[1] = IGNORE
    logp = model(tokens, targets)
    assert bool((logp[targets == IGNORE] == 0).all()) and bool((logp[targets != IGNORE] < 0).all())
    logp[targets == IGNORE].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    model.zero_grad()
    model(tokens, targets).sum().backward()
    with_ignored = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(tokens[:1, :3], targets[:1, :3]).sum().backward()  # without the ignored positions
    for a, p in zip(with_ignored, model.parameters()):
        assert (a - p.grad).abs().max() <= 1e-5


def test_all_targets_ignored():
    model, tokens = tiny(), ids(2, 6)
    logp = model(tokens, torch.full_like(tokens, IGNORE))
    logp.sum().backward()
    assert not logp.any() and all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_bfloat16_computes_near_float32():
    model, tokens, targets = tiny(), ids(2, 50), ids(2, 50, seed=1)
    wanted = model(tokens, targets)
    model.dtype = torch.bfloat16
    logp = model(tokens, targets)
    logp.sum().backward()
    assert logp.dtype == torch.float32 and all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert (logp - wanted).norm() <= 0.05 * wanted.norm()


# ---------------------------------------------------------------------- cache and generation

@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 1, 5], [12], [1, 11]])
def test_cache_equals_full_forward(pieces):
    model, tokens = tiny(), ids(3, 12)
    starts = torch.tensor([[0], [2], [4]]).expand(-1, 12)  # two rows padded on the left
    cache, done = KVCache(model, 3, 12), 0
    for n in pieces:
        with torch.no_grad():
            logits = model.logits(tokens[:, done:done + n], starts[:, done:done + n], cache)
        done += n
        for b, hidden in enumerate((0, 2, 4)):
            if done > hidden:
                wanted = model.logits(tokens[b:b + 1, hidden:done])
                assert (logits[b] - wanted[0]).abs().max() <= 1e-5
    assert cache.length == 12


def test_the_last_hidden_states_alone():
    model, tokens = tiny(), ids(3, 12)
    whole, caches = model.hidden_states(tokens), [KVCache(model, 3, 12) for _ in range(2)]
    for n in (1, 5, 12):
        assert (model.hidden_states(tokens, last=n) - whole[:, -n:]).abs().max() <= 1e-6
    with torch.no_grad():
        for cache, last in zip(caches, (0, 1)):
            model.hidden_states(tokens, None, cache, last)
    assert torch.equal(caches[0].k, caches[1].k) and torch.equal(caches[0].v, caches[1].v)


def test_targets_after_a_cached_context():
    """Continuations scored after one shared context."""
    model, tokens, targets = tiny(), ids(1, 20), ids(1, 20, seed=1)
    cache = KVCache(model, 1, 20)
    with torch.no_grad():
        model.hidden_states(tokens[:, :9], cache=cache)
        x = model.hidden_states(tokens[:, 9:], cache=cache)
        logp = model.lm_head(x).log_softmax(-1).gather(2, targets[:, 9:, None])[..., 0]
        assert (logp - model(tokens, targets)[:, 9:]).abs().max() <= 1e-5


PROMPTS = [ids(1, n, seed=n)[0].tolist() for n in (5, 1, 12, 5, 3, 130)]


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_generation_of_unequal_prompts_equals_each_alone(batch):
    model = tiny()
    together = generate(model, PROMPTS, 10, batch_size=batch)
    assert together == [generate(model, [p], 10)[0] for p in PROMPTS]
    assert all(len(out) == 10 for out in together)


def test_generation_equals_transformers(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    theirs = hf_load(tmp_path)
    ours = generate(model, PROMPTS, 12)
    for prompt, out in zip(PROMPTS, ours):
        wanted = theirs.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                                 max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
        assert out == wanted[0, len(prompt):].tolist()


def test_generation_stops_before_the_stop_id():
    model = tiny()
    free = generate(model, PROMPTS, 12)
    stop = {free[0][4], free[2][0]}
    cut = [next((i for i, t in enumerate(out) if t in stop), 12) for out in free]
    assert generate(model, PROMPTS, 12, stop) == [out[:n] for out, n in zip(free, cut)]
    assert min(cut) == 0 and len(set(cut)) > 1


def test_generation_of_nothing():
    assert generate(tiny(), [], 5) == []
    assert generate(tiny(), [[1, 2], [3]], 0) == [[], []]


# ---------------------------------------------------------------------- weights

def equal_weights(a, b):
    theirs = dict(b.named_parameters())
    return all(torch.equal(p, theirs[n]) and p.dtype == theirs[n].dtype for n, p in a.named_parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_bytes", [1, 10_000, 1 << 30])
def test_saving_and_loading_keeps_every_bit(tmp_path, max_bytes, tied):
    model = tiny(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path, max_bytes=max_bytes)
    files = sorted(tmp_path.glob("*.safetensors"))
    if max_bytes == 10_000:
        assert len(files) > 3 and (tmp_path / "model.safetensors.index.json").exists()
    back = Qwen2.from_pretrained(tmp_path)
    assert equal_weights(model, back) and back.config == model.config
    assert not list(tmp_path.glob("*.tmp"))
    theirs = dict(hf_load(tmp_path).named_parameters())
    assert all(torch.equal(p, theirs[n]) for n, p in model.named_parameters())


def test_saving_again_over_another_number_of_files(tmp_path):
    """Neither we nor transformers may read the files (an index, more shards) of an earlier save."""
    for seed, max_bytes in ((0, 10_000), (1, 1 << 30), (2, 20_000)):
        model = tiny(seed)
        model.save_pretrained(tmp_path, max_bytes=max_bytes)
        assert equal_weights(model, Qwen2.from_pretrained(tmp_path)), f"save {seed}"
        theirs = dict(hf_load(tmp_path).named_parameters())
        assert all(torch.equal(p, theirs[n]) for n, p in model.named_parameters()), f"save {seed}, in transformers"


def test_saving_in_bfloat16(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    back = Qwen2.from_pretrained(tmp_path, torch.bfloat16, param_dtype=torch.float32)
    assert back.dtype == torch.bfloat16
    assert equal_weights(back, model.bfloat16().float())


def test_fresh_weights_are_deterministic():
    a, b = Qwen2(TINY).init_weights(3), Qwen2(TINY)
    state = torch.get_rng_state()
    b.init_weights(3)
    assert equal_weights(a, b) and torch.equal(torch.get_rng_state(), state)  # the global generator is untouched
    deep = Qwen2(replace(TINY, num_hidden_layers=5)).init_weights(3)  # other layers do not change a matrix
    assert torch.equal(a.model.layers[1].mlp.up_proj.weight, deep.model.layers[1].mlp.up_proj.weight)


def test_fresh_weights_depend_on_the_seed():
    """Torch's CPU generator uses the low 32 bits of a seed only."""
    models = [Qwen2(TINY).init_weights(seed) for seed in (0, 1, 4)]
    for name, p in models[0].named_parameters():
        if p.ndim == 2:
            others = [dict(m.named_parameters())[name] for m in models[1:]]
            assert not torch.equal(p, others[0]) and not torch.equal(p, others[1]) and not torch.equal(*others), name


def test_fresh_weights_have_the_stated_spread():
    model = Qwen2(replace(TINY, num_hidden_layers=8, vocab_size=1000)).init_weights(0)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        elif p.ndim == 1:
            assert bool((p == 1).all())
        else:
            std = 0.02 / 4 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            sigma, n = p.detach().double() / std, p.numel()  # within five standard errors
            assert abs(float(sigma.std()) - 1) < 5 / (2 * n) ** 0.5 and abs(float(sigma.mean())) < 5 / n ** 0.5, name


def test_fresh_weights_of_different_parameters_differ():
    """No two matrices may hold the same random numbers, even up to their scale."""
    model, seen = Qwen2(replace(TINY, num_hidden_layers=12)).init_weights(0), {}
    for name, p in model.named_parameters():
        if p.ndim == 2:
            first = p.detach().flatten()[:256]
            key = tuple((first / first.std()).mul(1000).round().int().tolist())
            assert key not in seen, f"{name} starts like {seen[key]}"
            seen[key] = name


# ---------------------------------------------------------------------- what is refused

@pytest.fixture
def saved(tmp_path):
    tiny().save_pretrained(tmp_path)
    return tmp_path


def refused(folder, *words):
    with pytest.raises(ValueError) as e:
        Qwen2.from_pretrained(folder)
    for word in words:
        assert word in str(e.value)


def test_missing_config(saved):
    (saved / "config.json").unlink()
    refused(saved, str(saved), "config.json")


def test_missing_folder(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "config.json")


def test_wrong_model_type(saved):
    path = saved / "config.json"
    path.write_text(path.read_text().replace('"qwen2"', '"bert"'))
    refused(saved, str(path), "bert", "qwen2")


def test_missing_and_unknown_tensors(saved):
    tensors = load_file(saved / "model.safetensors")
    tensors["model.norm.bias"] = tensors.pop("model.norm.weight")
    save_file(tensors, saved / "model.safetensors")
    refused(saved, str(saved), "model.norm.weight", "model.norm.bias")


def test_wrong_shape(saved):
    tensors = load_file(saved / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(31)
    save_file(tensors, saved / "model.safetensors")
    refused(saved, str(saved / "model.safetensors"), "model.norm.weight", "31", "32")


def test_no_weights(saved):
    (saved / "model.safetensors").unlink()
    refused(saved, str(saved), "safetensors")


def test_pickled_weights_are_not_read(saved):
    (saved / "model.safetensors").unlink()
    torch.save({}, saved / "pytorch_model.bin")
    refused(saved, str(saved), "pickled")


def test_truncated_weights(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(saved, str(path))


def test_file_named_by_the_index_is_missing(tmp_path):
    tiny().save_pretrained(tmp_path, max_bytes=10_000)
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    refused(tmp_path, gone.name)


def test_config_that_is_not_json(saved):
    (saved / "config.json").write_text("{")
    refused(saved, "config.json")


@pytest.mark.parametrize("change, words", [
    (dict(hidden_size=30), "hidden_size 30 is not a multiple of num_attention_heads 4"),
    (dict(num_key_value_heads=3), "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
    (dict(hidden_size=36), "head size 9 is odd"),
])
def test_impossible_shapes(change, words):
    with pytest.raises(ValueError, match=words):
        replace(TINY, **change)
