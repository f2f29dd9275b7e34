"""Knowledge adapters: off is the base bit for bit, what is trained, the loss, the pairs, and ranks by hand."""
import json
import math
import random
import subprocess
import sys
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from corpus import entity_pairs
from evaluation.ranks import pessimistic_rank, summarize
from model import ModelConfig, Qwen2
from recipes import adapters as recipe
from tinyworld.knowledge_base import write_knowledge_base
from training.adapters import (
    FUSION,
    adapter_parameters,
    add_adapters,
    encode,
    info_nce,
    load_adapters,
    save_adapters,
    set_active,
    train_only,
)

pytestmark = pytest.mark.usefixtures("on_the_cpu")
SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2)
NAMES = ["ep", "tp"]
TOKENS = torch.tensor([[5, 9, 13, 2, 44], [1, 7, 7, 60, 3]])


@pytest.fixture
def model():
    """A random model with two adapters, all of whose matrices have random values."""
    m = Qwen2(ModelConfig(**SHAPE)).init_weights(1)
    add_adapters(m, NAMES, 4)
    with torch.no_grad():
        for name, p in adapter_parameters(m).items():
            if "value" not in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))) * 0.3)
    return m


def states(m):
    with torch.no_grad():
        return m.hidden_states(TOKENS)


# ---------------------------------------------------------------------- the modules

def test_off_and_untrained_are_the_base_bit_for_bit(model):
    base = Qwen2(ModelConfig(**SHAPE)).init_weights(1)
    assert torch.equal(states(model), states(base))
    set_active(model, NAMES)
    assert not torch.equal(states(model), states(base))
    set_active(model, [])
    assert torch.equal(states(model), states(base))
    fresh = Qwen2(ModelConfig(**SHAPE)).init_weights(1)
    add_adapters(fresh, NAMES, 4)
    set_active(fresh, ["ep"])  # Up is zero
    assert torch.equal(states(fresh), states(base))
    set_active(fresh, NAMES)  # the values are y, and v the identity
    torch.testing.assert_close(states(fresh), states(base), atol=1e-5, rtol=1e-5)
    assert set(fresh.base_parameters()) == set(dict(base.named_parameters()))


def test_adapter_and_fusion_by_their_formulas(model):
    mlp = model.model.layers[0].mlp
    y = torch.randn(3, 32)
    ep, fusion = mlp.adapters["ep"], mlp.adapter_fusion
    hidden = (y @ ep.down.weight.T + ep.down.bias).clamp(min=0)
    torch.testing.assert_close(ep(y), y + hidden @ ep.up.weight.T + ep.up.bias)
    outputs = [a(y) for a in mlp.adapters.values()]
    q = y @ fusion.query.weight.T + fusion.query.bias
    scores = torch.stack([(q * (a @ fusion.key.weight.T + fusion.key.bias)).sum(-1) for a in outputs], -1)
    weights = scores.softmax(-1)
    expected = sum(w[:, None] * (a @ fusion.value.weight.T) for w, a in zip(weights.unbind(-1), outputs))
    torch.testing.assert_close(fusion(y, outputs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["ep", "tp", FUSION])
def test_only_one_part_is_trained(model, part):
    d, r, layers = 32, 8, 2
    before = {name: p.clone() for name, p in model.named_parameters()}
    set_active(model, NAMES)
    parameters = train_only(model, part)
    count = layers * (3 * d * d + 2 * d if part == FUSION else 2 * d * r + d + r)
    assert sum(p.numel() for p in parameters) == count
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    info_nce(*encode(model, [[3, 4], [5], [6, 7], [8, 1]], 0).chunk(2), 0.1).backward()
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and changed <= set(adapter_parameters(model, part))


def test_the_published_numbers_of_parameters():
    """mBERT: 12 layers of 4 x 74,544 and 1,771,008; XLM-R large: 24 of 4 x 132,160 and 3,147,776."""
    for size, adapter, fusion in ((768, 74_544, 1_771_008), (1024, 132_160, 3_147_776)):
        with torch.device("meta"):
            m = Qwen2(ModelConfig(hidden_size=size, intermediate_size=8, num_hidden_layers=1, vocab_size=8,
                                  num_attention_heads=4))
        add_adapters(m, list(entity_pairs.KINDS), 16)
        for part in entity_pairs.KINDS:
            assert sum(p.numel() for p in adapter_parameters(m, part).values()) == adapter
        assert sum(p.numel() for p in adapter_parameters(m, FUSION).values()) == fusion


def test_saved_and_loaded_apart(model, tmp_path):
    save_adapters(model, tmp_path, ["ep", FUSION])
    other = Qwen2(ModelConfig(**SHAPE)).init_weights(1)
    add_adapters(other, NAMES, 4, seed=9)
    load_adapters(other, tmp_path, ["ep", FUSION])
    for part, alike in (("ep", True), (FUSION, True), ("tp", False)):
        pairs = zip(adapter_parameters(other, part).values(), adapter_parameters(model, part).values())
        assert all(torch.equal(p, q) for p, q in pairs) == alike
    with pytest.raises(ValueError, match="no adapter 'tp'; there are: ep, fusion"):
        load_adapters(other, tmp_path, ["tp"])
    narrow = Qwen2(ModelConfig(**SHAPE))
    add_adapters(narrow, NAMES, 8)
    with pytest.raises(ValueError, match="trained for another width or reduction"):
        load_adapters(narrow, tmp_path, ["ep"])
    fewer = Qwen2(ModelConfig(**SHAPE | {"num_hidden_layers": 1}))
    add_adapters(fewer, NAMES, 4)
    with pytest.raises(ValueError, match="of a model with other layers"):
        load_adapters(fewer, tmp_path, ["ep"])
    others = Qwen2(ModelConfig(**SHAPE))
    add_adapters(others, ["ep", "es"], 4)
    with pytest.raises(ValueError, match=r"fuses \['ep', 'tp'\], this model has \['ep', 'es'\]"):
        load_adapters(others, tmp_path, [FUSION])


def test_names_and_reductions_that_cannot_be(model):
    fresh = Qwen2(ModelConfig(**SHAPE))
    for reduction in (0, 3):
        with pytest.raises(ValueError, match="must divide the model's hidden_size, 32"):
            add_adapters(fresh, NAMES, reduction)
    with pytest.raises(ValueError, match="'fusion' cannot be an adapter's name"):
        add_adapters(fresh, ["fusion"], 4)
    with pytest.raises(ValueError, match="no adapter 'es', only ep, tp"):
        set_active(model, ["es"])


# ---------------------------------------------------------------------- vectors and the loss

@pytest.mark.parametrize("pool", ["mean", "last"])
def test_padding_and_the_rest_of_the_batch_change_nothing(model, pool):
    set_active(model, NAMES)
    with torch.no_grad():
        together = encode(model, [[5, 9], [1, 2, 3, 4, 5, 6], [7]], 0, pool)
        alone = torch.cat([encode(model, [ids], 0, pool) for ids in ([5, 9], [1, 2, 3, 4, 5, 6], [7])])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    with torch.no_grad():
        of_text = model.hidden_states(torch.tensor([[0, 5, 9]]))[0, 1:]
    expected = of_text.mean(0) if pool == "mean" else of_text[-1]
    torch.testing.assert_close(together[0], expected / expected.norm(), atol=1e-5, rtol=1e-5)


def test_an_empty_text_is_refused(model):
    with pytest.raises(ValueError, match="text 1 of the batch has no tokens"):
        encode(model, [[1], [], [2]], 0)


@pytest.mark.parametrize("tau", [0.2, 0.5, 1.0])
def test_infonce_of_orthogonal_pairs(tau):
    x = torch.eye(6)
    assert float(info_nce(x, x, tau)) == pytest.approx(math.log(1 + 5 * math.exp(-1 / tau)), rel=1e-5)
    assert float(info_nce(x, torch.zeros(6, 6), tau)) == pytest.approx(math.log(6))


def test_pairs_with_the_same_answer_are_no_negatives():
    x = torch.eye(4)
    key = x[[0, 0, 2, 3]]  # the second key is the first query's, too
    same = torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    q = x[[0, 0, 2, 3]]
    expected = (2 * math.log(1 + 2 / math.e) + 2 * math.log(1 + 3 / math.e)) / 4
    assert float(info_nce(q, key, 1.0, same)) == pytest.approx(expected, rel=1e-5)
    assert float(info_nce(q, key, 0.1)) > 0.3  # as negatives they cost half of log 2


def test_one_pair_has_no_negatives():
    with pytest.raises(ValueError, match="at least 2 pairs in a batch, got 1"):
        info_nce(torch.ones(1, 3), torch.ones(1, 3), 0.1)


# ---------------------------------------------------------------------- the pairs

KB = {"entities": [{"id": "g", "labels": {"en": "Germany", "de": "Deutschland"}},
                   {"id": "b", "labels": {"en": "Berlin", "de": "Berlin", "kk": "Берлин"}},
                   {"id": "o", "labels": {"en": "Only", "de": " "}}, {"id": "n", "labels": {"fr": "Rien"}}],
      "relations": [{"id": "capital", "labels": {"en": "capital", "de": "Die Hauptstadt von {} ist"}},
                    {"id": "mute", "labels": {"fr": "rien"}}],
      "triples": [{"subject": "g", "relation": "capital", "object": "b"},
                  {"subject": "g", "relation": "mute", "object": "b"},
                  {"subject": "g", "relation": "capital", "object": "n"}],
      "descriptions": [{"entity": "b", "text": "A large city."}, {"entity": "n", "text": "Nothing."},
                       {"entity": "b", "text": " "}],
      "sentences": [{"subject": "g", "object": "b", "mention": "Berlin", "text": "It lies in Berlin today."},
                    {"subject": "g", "object": "b", "mention": "Bonn", "text": "It lies in Berlin."},
                    {"subject": "g", "object": "b", "mention": "Berlin", "text": "Berlin is Berlin."}]}
LANGUAGES = ["en", "de", "kk"]


def write_kb(folder, **changes):
    folder.mkdir(exist_ok=True)
    for name, rows in (KB | changes).items():
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def test_what_is_read_and_what_is_dropped(tmp_path):
    knowledge = entity_pairs.read_knowledge(write_kb(tmp_path), LANGUAGES)
    assert knowledge.entities == {"g": {"en": "Germany", "de": "Deutschland"}, "o": {"en": "Only"},
                                  "b": {"en": "Berlin", "de": "Berlin", "kk": "Берлин"}}
    assert knowledge.triples == [("g", "capital", "b")] and knowledge.descriptions == [("b", "A large city.")]
    assert knowledge.sentences == [("g", "b", "It lies in today.")]
    assert knowledge.dropped == {
        "entities: empty label": 1, "entities: no label in these languages": 1,
        "relations: no label in these languages": 1, "triples: relation without a label": 1,
        "triples: entity without a label": 1, "descriptions: empty, or of an entity without a label": 2,
        "sentences: object absent": 1, "sentences: object repeated": 1}
    assert entity_pairs.count_unusable(knowledge) == {"entities: one label only (no ep pair)": 1}


def test_the_four_kinds_of_pairs(tmp_path):
    knowledge = entity_pairs.read_knowledge(write_kb(tmp_path), LANGUAGES)
    found = {kind: Counter() for kind in entity_pairs.KINDS}
    for seed in range(60):
        for kind in found:
            found[kind].update(entity_pairs.one_pass(knowledge, kind, random.Random(seed)))
    assert set(found["ep"]) == {
        ("Germany", "Deutschland", "g"), ("Deutschland", "Germany", "g"), ("Berlin", "Berlin", "b"),
        ("Berlin", "Берлин", "b"), ("Берлин", "Berlin", "b")}
    queries = {"Germany capital", "Die Hauptstadt von Deutschland ist"}
    labels = {"Berlin", "Берлин"}
    assert set(found["tp"]) == {(q, k, "b") for q in queries for k in labels}
    assert set(found["es"]) == {("A large city.", k, "b") for k in labels}
    assert set(found["ts"]) == {("It lies in today.", k, "b") for k in labels}
    assert found["ep"].total() == 120 and found["ts"].total() == 60  # one of each row a pass


def test_batches_are_seeded_and_go_on(tmp_path):
    knowledge = entity_pairs.read_knowledge(write_kb(tmp_path), LANGUAGES)
    a, b, c = (entity_pairs.pair_batches(knowledge, "ep", 3, seed) for seed in (0, 0, 1))
    first, second, third = ([next(x) for _ in range(20)] for x in (a, b, c))
    assert first == second != third and all(len(batch) == 3 for batch in first)
    with pytest.raises(ValueError, match="tp: 1 pairs to train on, at least 2"):
        next(entity_pairs.pair_batches(knowledge, "tp", 2, 0))


def test_held_out_entities_are_nowhere_in_training(tmp_path):
    write_knowledge_base(tmp_path, ["en", "kk"], 0)
    everything = entity_pairs.read_knowledge(tmp_path, ["en", "kk"])
    assert not everything.dropped and not entity_pairs.count_unusable(everything)
    knowledge, held = entity_pairs.hold_out(everything, 0.2, 0)
    assert len([e for e in held if e.startswith("country.")]) == 5  # of the 24 subjects of triples
    assert len(held) == 5 + round(0.2 * (len(everything.entities) - 24))
    mentioned = {*knowledge.entities, *(e for s, _, o in knowledge.triples for e in (s, o)),
                 *(e for e, _ in knowledge.descriptions), *(e for s, o, _ in knowledge.sentences for e in (s, o))}
    assert not mentioned & set(held) and len(knowledge.triples) > 50
    assert entity_pairs.hold_out(everything, 0.2, 1)[1] != held


@pytest.mark.parametrize("changes, message", [
    ({"entities": "[1]\n"}, "entities.jsonl, line 1: expected an object with id, labels"),
    ({"entities": "{\n"}, "entities.jsonl, line 1"),
    ({"entities": [{"id": "a", "labels": {"en": 3}}]}, "must be a text"),
    ({"entities": [KB["entities"][0]] * 2}, "has the id g twice"),
    ({"triples": [{"subject": "g", "relation": "capital"}]}, "triples.jsonl, line 1: .*subject, relation, object")])
def test_files_that_cannot_be_read(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        entity_pairs.read_knowledge(write_kb(tmp_path, **changes), LANGUAGES)
    (tmp_path / "entities.jsonl").unlink()
    with pytest.raises(ValueError, match="0 files entities.jsonl"):
        entity_pairs.read_knowledge(tmp_path, LANGUAGES)


# ---------------------------------------------------------------------- ranks

def test_ranks_by_hand():
    scores = torch.tensor([0.9, 0.5, 0.5, 0.1])
    assert [pessimistic_rank(scores, i) for i in range(4)] == [1, 3, 3, 4]
    assert pessimistic_rank(scores, 1, {0}) == 2 and pessimistic_rank(scores, 3, {0, 1, 2}) == 1
    assert pessimistic_rank(scores, 0, {0}) == 1  # the gold one is never removed
    assert pessimistic_rank(torch.full((5,), 0.3), 0) == 5  # equal scores earn nothing
    assert pessimistic_rank(torch.tensor([0.1, math.nan]), 1) == 2 == pessimistic_rank(torch.tensor([1., 0.]), 1)
    assert summarize([1, 2, 20]) == {"n": 3, "hits1": pytest.approx(100 / 3), "hits10": pytest.approx(200 / 3),
                                     "mrr": pytest.approx(100 * 1.55 / 3)}
    assert summarize([])["mrr"] is None


@given(st.lists(st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=8), min_size=1, max_size=6))
def test_hits_at_1_are_at_most_the_mrr(rows):
    """In the authors' logs they are not: there a rank of 2 counts as a hit."""
    result = summarize([pessimistic_rank(torch.tensor(row), 0) for row in rows])
    assert result["hits1"] <= result["mrr"] + 1e-9 and result["mrr"] <= 100


def test_the_guess_by_relation():
    triples = [("a", "r", "x"), ("b", "r", "y"), ("c", "r", "x"), ("d", "q", "z")]
    knowledge = entity_pairs.Knowledge(triples=triples)
    # c's object is one of two that others have, in random order: (1 + 1/2) / 2; d's relation has no other object
    assert recipe.guess_by_relation(knowledge, ["c", "d"]) == pytest.approx(100 * 0.75 / 2)


# ---------------------------------------------------------------------- FSDP2

SHARDED = """
import sys; sys.path.insert(0, {root!r})
import torch
from types import SimpleNamespace
from torch.distributed.fsdp import register_fsdp_forward_method
from model import ModelConfig, Qwen2
from training.adapters import *
from training.distributed import World, shard_model
torch.set_num_threads(1)
c = SimpleNamespace(threads=1, first_new_id=None, dtype="float32", shard_size=2, batch_size=2)
world = World(c)
m = Qwen2(ModelConfig(**{shape!r})).init_weights(1)
add_adapters(m, {names!r}, 4)
base = {{k: v.clone() for k, v in m.base_parameters().items()}}
if world.is_sharded:
    shard_model(m, world)
    register_fsdp_forward_method(m, "hidden_states")
for part, active in (("ep", ["ep"]), ("tp", ["tp"]), (FUSION, {names!r})):
    set_active(m, active)
    optimizer = torch.optim.AdamW(train_only(m, part), lr=1e-2)
    for step in range(3):
        texts = [[3 + step, 4], [5], [6, 7], [8, 1], [9, 9, 2], [12]]
        info_nce(*encode(m, texts, 0).chunk(2), 0.1).backward()
        optimizer.step()
        optimizer.zero_grad()
save_adapters(m, sys.argv[1], ["ep", "tp", FUSION])
for name, p in m.base_parameters().items():
    full = p.full_tensor() if hasattr(p, "full_tensor") else p
    assert torch.equal(full, base[name]), name
world.close()
"""


@pytest.mark.slow
def test_two_sharded_processes_equal_one(root, tmp_path):
    """Under FSDP2 with frozen weights; both processes compute the same batch."""
    from safetensors.torch import load_file
    script = tmp_path / "run.py"
    script.write_text(SHARDED.format(root=str(root), shape=SHAPE, names=NAMES))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launch, out in (([sys.executable], "one"), (torchrun, "two")):
        done = subprocess.run([*launch, str(script), str(tmp_path / out)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    for part in ("ep", "tp", FUSION):
        one, two = (load_file(tmp_path / out / f"{part}.safetensors") for out in ("one", "two"))
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------- the recipe

TINY = ["configs/adapters/tiny.py", "languages=['en', 'zh']", "adapters=['ep', 'tp']",
        "steps={'ep': 3, 'tp': 3, 'fusion': 2}", "batch_size={'ep': 8, 'tp': 8, 'fusion': 8}"]


@pytest.mark.slow
def test_the_recipe_runs_and_goes_on(tmp_path, monkeypatch, root, capsys):
    """Started again after the first adapter it ends with the same bits; the model with adapters off is untouched."""
    from evaluation.outcomes import load
    monkeypatch.chdir(root)
    recipe.main([*TINY, f"out={tmp_path / 'a'}"])

    def adapters():  # not the files' bytes: safetensors writes its metadata in any order
        return {p.name: {name: x.tolist() for name, x in load_file(p).items()}
                for p in (tmp_path / "a" / "adapters").glob("*.safetensors")}

    first = adapters()
    assert set(first) == {"ep.safetensors", "tp.safetensors", "fusion.safetensors"}
    outcome = load(tmp_path / "a" / "outcome.json")
    assert outcome.english_before == outcome.english_after and list(outcome.controls)[0] == "none"
    for part in ("tp", "fusion"):
        for suffix in ("json", "safetensors"):
            (tmp_path / "a" / "adapters" / f"{part}.{suffix}").unlink()
    capsys.readouterr()
    recipe.main([*TINY, f"out={tmp_path / 'a'}"])
    assert "ep step" not in capsys.readouterr().out
    assert first == adapters()
    assert load(tmp_path / "a" / "outcome.json").tokens == outcome.tokens
    with pytest.raises(ValueError, match="has the step 'settings' with other settings"):
        recipe.main([*TINY, f"out={tmp_path / 'a'}", "seed=1"])


@pytest.mark.parametrize("changes, message", [
    (["adapters=['ep']"], "two or more of ep, tp, es, ts"), (["adapters=['ep', 'xx']"], "'xx'"),
    (["languages=['en']"], "languages must be two or more"), (["pool='max'"], "pool must be mean or last"),
    (["tau=0"], "tau must be positive"), (["held_out=1.0"], "held_out must be between 0 and 1"),
    (["batch_size={'ep': 1, 'tp': 8, 'fusion': 8}"], "batch_size of ep must be at least 2, got 1"),
    (["steps={'ep': 1}"], "steps of tp must be at least 1, got None"), (["knowledge=kb"], "knowledge and text")])
def test_settings_that_cannot_be(tmp_path, root, monkeypatch, changes, message):
    monkeypatch.chdir(root)
    with pytest.raises(ValueError, match=message):
        recipe.main([*TINY, f"out={tmp_path / 'a'}", *changes])


def test_what_the_full_run_needs(root, capsys):
    """Two texts a pair; a frozen matrix costs 4 FLOP a token and weight."""
    recipe.main([str(root / "configs/adapters/full.py"), "estimate=10"])
    tokens = 20 * (78_000 * (128 + 128 + 32 + 32) + 20_000 * 64)
    matrices = 28 * (1536 * (1536 + 2 * 256) + 1536 * 1536 + 3 * 1536 * 8960)
    minutes = 4 * tokens * matrices / 0.4 / 989.5e12 / 60
    assert f"{tokens / 1e6:,.1f} M tokens forward and backward: {minutes:,.1f} minutes" in capsys.readouterr().out


def test_the_configs_fit(root):
    import configs
    for name in ("tiny", "full"):
        c, = configs.load(recipe.Settings, argv=[str(root / f"configs/adapters/{name}.py")])
        assert set(c.steps) == set(c.batch_size) == {*entity_pairs.KINDS, FUSION}
