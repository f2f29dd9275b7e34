"""evaluation/probe*.py and recipes/probing.py: exact fits, no leaks between training and test, controls at chance, bad
statements refused or counted, and a run from statements to table."""
import json
import math
import random
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import tokenizer
from configs import load
from evaluation import outcomes, probe, probe_languages, programs
from evaluation.probe import Scaling, classify, fit_probe, last_states, logistic_regression, similarity, split_groups
from model import ModelConfig, Qwen2
from recipes import probing as recipe
from tinyworld import statements, world
from tinyworld.grammar import load_language, render_sentence

BASE = Path(__file__).parent.parent / "tinyworld/base"
SMALL = ModelConfig(vocab_size=8192, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2)


@pytest.fixture(scope="module")
def model():
    return Qwen2(SMALL).init_weights(0).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probed") / "model"
    model.save_pretrained(folder, tokenizer=BASE)
    return str(folder)


def settings(**changes):
    return recipe.Probing(**{"models": ["m"], "out": "o", "languages": ["en"]} | changes)


def rows_of(*values, language="en"):
    return [{"text": text, "label": label, "group": group, "language": language} for text, label, group in values]


def texts(count, seed, longest=12):
    rng = random.Random(seed)
    return [[rng.randrange(1, 8192) for _ in range(rng.randint(1, longest))] for _ in range(count)]


# ---------------------------------------------------------------------- states

def test_states_do_not_depend_on_batch_and_padding(model):
    ids = texts(9, 0)
    packed = last_states(model, ids)
    alone = torch.cat([last_states(model, [x]) for x in ids], 1)
    assert packed.shape == (3, 9, 32)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-6)
    T = max(map(len, ids))
    right = model.residual_streams(torch.tensor([x + [0] * (T - len(x)) for x in ids]))
    left = model.residual_streams(torch.tensor([[0] * (T - len(x)) + x for x in ids]),
                                  torch.tensor([[min(T - len(x), t) for t in range(T)] for x in ids]))
    for layer in range(3):
        by_right = torch.stack([right[layer][i, len(x) - 1] for i, x in enumerate(ids)])
        torch.testing.assert_close(packed[layer], by_right, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(packed[layer], left[layer][:, -1], rtol=1e-5, atol=1e-6)


def test_mlp_input_is_the_normalized_stream_after_attention(model):
    ids = texts(1, 1)[0]
    out = last_states(model, [ids], "mlp_in")
    assert out.shape == (2, 1, 32)
    streams = model.residual_streams(torch.tensor([ids]))
    for layer, block in enumerate(model.model.layers):  # stream after the block = stream after attention + mlp(input)
        after_attention = streams[layer + 1][0, -1] - block.mlp(out[layer, 0])
        torch.testing.assert_close(block.post_attention_layernorm(after_attention), out[layer, 0], rtol=1e-4, atol=1e-5)
    assert not any(block.mlp._forward_pre_hooks for block in model.model.layers)


def test_a_text_without_ids_is_refused(model):
    with pytest.raises(ValueError, match="without ids"):
        last_states(model, [[1], []])


# ---------------------------------------------------------------------- the classifier

@pytest.mark.parametrize("n, width, c", [(200, 5, 1.0), (40, 300, 1.0), (60, 60, 100.0), (300, 20, 1e-4)])
def test_gradient_is_zero_at_the_fit(n, width, c):
    g = torch.Generator().manual_seed(n)
    x = torch.randn(n, width, generator=g, dtype=torch.float64)
    labels = (x[:, 0] + torch.randn(n, generator=g) > 0.3).double()
    w, b = logistic_regression(x, labels, c)
    w, b = w.clone().requires_grad_(), torch.tensor(b, dtype=torch.float64, requires_grad=True)
    loss = w.square().sum() / 2 + c * F.softplus(-(2 * labels - 1) * (x @ w + b)).sum()
    loss.backward()
    assert torch.cat([w.grad, b.grad[None]]).norm() < 1e-6


def test_separable_states_are_told_apart():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    x = torch.randn(400, 16, generator=g) + 6 * labels[:, None]
    fitted = fit_probe(x[:200], labels[:200], Scaling.fit(x[:200]))
    assert classify(fitted.scores(x[200:]), labels[200:]) == {"accuracy": 1.0, "f1": 1.0, "auc": 1.0}


def test_swapping_the_classes_flips_the_scores():
    g = torch.Generator().manual_seed(1)
    x, labels = torch.randn(50, 4, generator=g), torch.arange(50) % 3 == 0
    a, b = (fit_probe(x, y, Scaling.fit(x)) for y in (labels, ~labels))
    torch.testing.assert_close(a.scores(x), -b.scores(x), rtol=1e-6, atol=1e-8)


def test_a_constant_feature_counts_for_nothing_and_states_must_be_finite():
    x = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0]])
    scaling = Scaling.fit(x)
    assert scaling.constant == 1 and scaling(x)[:, 0].tolist() == [0, 0, 0]
    assert scaling(x)[:, 1].std(correction=0) == pytest.approx(1)
    with pytest.raises(ValueError, match="1 of 2 states are not finite.*float32"):
        Scaling.fit(torch.tensor([[1.0], [torch.inf]]))


def test_scaling_is_of_the_training_rows_only():
    data = {"en": probe_languages.Language([[1]] * 8, [0, 1] * 4, list("aabbccdd"))}
    states = {"en": torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(0))}
    rows = probe_languages.has_group(data, {"a", "b"})
    scaling = probe_languages.fit_scalings(data, states, 0, rows, "shared")["en"]
    torch.testing.assert_close(scaling.mean, states["en"][0, :4].double().mean(0))
    changed = {"en": states["en"].clone()}
    changed["en"][0, 4:] += 100  # the test rows
    assert probe_languages.fit_scalings(data, changed, 0, rows, "shared")["en"].key == scaling.key


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_the_share_of_pairs_in_order(seed):
    rng = random.Random(seed)
    scores, labels = [rng.randrange(6) for _ in range(40)], [rng.randrange(2) for _ in range(40)]
    pairs = [(a > b) + (a == b) / 2 for a, x in zip(scores, labels) for b, y in zip(scores, labels) if x and not y]
    got = classify(torch.tensor(scores) - 2.5, torch.tensor(labels))
    assert got["auc"] == pytest.approx(sum(pairs) / len(pairs))
    right = sum((s > 2.5) == y for s, y in zip(scores, labels))
    true_positives = sum(s > 2.5 and y for s, y in zip(scores, labels))
    assert got["accuracy"] == right / 40
    assert got["f1"] == pytest.approx(2 * true_positives / (sum(labels) + sum(s > 2.5 for s in scores)))


def test_what_is_undefined_is_none():
    assert classify(torch.tensor([1.0, 2.0]), torch.tensor([1, 1])) == {"accuracy": 1.0, "f1": 1.0, "auc": None}
    assert classify(torch.tensor([-1.0]), torch.tensor([0])) == {"accuracy": 1.0, "f1": None, "auc": None}
    assert classify(torch.tensor([]), torch.tensor([])) == {"accuracy": None, "f1": None, "auc": None}
    x = torch.randn(4, 2)
    assert fit_probe(x, torch.tensor([1, 1, 1, 1]), Scaling.fit(x)) is None


def test_cosines_of_different_features_are_refused():
    g = torch.Generator().manual_seed(0)
    x, labels = torch.randn(30, 4, generator=g), torch.arange(30) % 2
    scaling = Scaling.fit(x)
    a = fit_probe(x, labels, scaling, place=("block_out", 1))
    assert similarity(a, a) == pytest.approx(1)
    assert similarity(a, fit_probe(x, 1 - labels, scaling, place=("block_out", 1))) == pytest.approx(-1)
    with pytest.raises(ValueError, match="means nothing"):
        similarity(a, fit_probe(x, labels, scaling, place=("block_out", 2)))
    with pytest.raises(ValueError, match="means nothing"):
        similarity(a, fit_probe(x, labels, Scaling.fit(2 * x), place=("block_out", 1)))
    assert similarity(a, probe.Probe(("block_out", 1), scaling, torch.zeros(4).double(), 0.5)) is None


# ---------------------------------------------------------------------- splits and controls

def test_no_group_straddles_a_split_and_order_does_not_matter():
    groups = [f"g{i % 10}" for i in range(40)]
    test = split_groups(groups, 0.4, 3)
    assert len(test) == 4 and split_groups(groups[::-1], 0.4, 3) == test
    assert any(split_groups(groups, 0.4, seed) != test for seed in range(4, 8))
    assert 0 < len(split_groups(["a", "b"], 0.01, 0)) < 2 and len(split_groups(["a", "b"], 0.99, 0)) == 1
    with pytest.raises(ValueError, match="1 groups cannot be split"):
        split_groups(["a", "a"], 0.4, 0)


def test_twins_and_translations_are_on_one_side():
    rows = statements.make_statements(world.make_facts(0), ["en", "kk"], 1)
    data = probe_languages.encode_statements(settings(), tokenizer.load(BASE), rows)
    test, rest = probe_languages.split_statements(settings(), data, 0)
    assert test and rest and not test & rest
    side = {}
    for row in rows:
        fact = row["group"]
        side.setdefault(fact, set()).add(fact in test)
    assert all(len(sides) == 1 for sides in side.values())
    assert {row["group"] for row in rows if row["language"] == "en"} == {
        row["group"] for row in rows if row["language"] == "kk"}


@pytest.mark.parametrize("scaling", ["shared", "own"])
def test_layer_0_scores_the_majority_of_the_training_labels(scaling):
    """Every statement ends in the same token, so the feature is constant; the labels are not balanced."""
    model, t = Qwen2(SMALL).init_weights(1).eval(), tokenizer.load(BASE)
    rng = random.Random(0)
    homes = [("home", {"person": world.KEYS["person"][i % 16], "city": world.KEYS["city"][i % 24]}) for i in range(40)]
    rows = [row for code in ("en", "zh") for i, message in enumerate(homes) for row in rows_of(
        (render_sentence(load_language(code), message), int(rng.random() < 0.7), i), language=code)]
    c = settings(languages=None, statements="x", scaling=scaling)
    data = probe_languages.encode_statements(c, t, rows)
    assert all(len(language.last_tokens) == 1 for language in data.values())
    found = probe_languages.probe_languages(c, data, probe_languages.compute_states(c, model, data), scaling)
    test, _ = probe_languages.split_statements(c, data, 0)
    for code, language in data.items():
        train = [y for y, g in zip(language.labels, language.groups) if g not in test]
        asked = [y for y, g in zip(language.labels, language.groups) if g in test]
        majority = int(2 * sum(train) > len(train))
        assert found[code]["layers"][0]["accuracy"] == sum(y == majority for y in asked) / len(asked)


def test_shuffled_labels_are_at_chance_and_real_ones_are_not():
    n, width = 1200, 300  # as many directions as there are here, some agree with shuffled labels by chance only
    labels = [i % 2 for i in range(n)]
    data = {"en": probe_languages.Language([[1]] * n, labels, [str(i // 2) for i in range(n)])}
    states = torch.randn(1, n, width, generator=torch.Generator().manual_seed(0))
    states = {"en": states + 0.2 * torch.tensor(labels)[None, :, None]}
    c = settings()
    real, shuffled = (probe_languages.probe_languages(c, data, states, "shared", s)["en"] for s in (False, True))
    assert real["accuracy"] > 0.9
    assert abs(shuffled["accuracy"] - 0.5) < 3 * math.sqrt(0.25 / (0.4 * n))
    assert data["en"].labels == labels


@pytest.mark.parametrize("code", ["en", "kk", "zh"])
def test_words_say_nothing_about_the_truth_of_the_tinyworld(code):
    facts = world.make_facts(0)
    rows, t = statements.make_statements(facts, [code], 2), tokenizer.load(BASE)
    assert len(rows) > 250 and sum(row["label"] for row in rows) == len(rows) / 2
    true = {render_sentence(load_language(code), message) for message in facts.values()}
    assert all((row["text"] in true) == row["label"] for row in rows)
    for group in {row["group"] for row in rows}:
        words = [sorted(w for row in rows if row["group"] == group and row["label"] == label
                        for w in re.findall(r"\w+", row["text"]) if code != "zh") for label in (0, 1)]
        assert words[0] == words[1]
    data = probe_languages.encode_statements(settings(), t, rows)
    control = probe_languages.probe_languages(settings(), data, probe_languages.count_tokens(data), "own")[code]
    assert abs(control["accuracy"] - 0.5) < 0.05


def test_verdicts_are_right_and_even():
    facts = world.make_facts(0)
    documents = list(statements.make_verdicts(facts, 0, "en", 200))
    true = {render_sentence(load_language("en"), message) for message in facts.values()}
    lines = [line.rsplit(" ", 1) for document in documents for line in document["text"].split("\n")]
    assert len(lines) == 800 and all((text in true) == (verdict == "True.") for text, verdict in lines)
    assert 340 < sum(verdict == "True." for _, verdict in lines) < 460
    assert list(statements.make_verdicts(facts, 0, "en", 200)) == documents
    with pytest.raises(ValueError, match="no words for true and false in 'th'"):
        next(statements.make_verdicts(facts, 0, "th", 1))


# ---------------------------------------------------------------------- statements of the user

@pytest.mark.parametrize("line, message", [
    ('{"text": "a", "label": 2, "group": 1, "language": "en"}', "line 2: label must be 0 or 1, got 2"),
    ('{"text": "a", "label": 1, "language": "en"}', "line 2: group must be a name"),
    ('{"text": 3, "label": 1, "group": 1, "language": "en"}', "line 2: text and language must be strings"),
    ('{"text": "a", "label": 1, "group": 1}', "line 2: text and language"),
    ('{"text": ', "line 2: "), ("[1]", "line 2: no row")])
def test_a_row_that_is_no_statement_is_named(tmp_path, line, message):
    path = tmp_path / "s.jsonl"
    path.write_text('{"text": "a.", "label": true, "group": 0, "language": "en"}\n' + line + "\n")
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        recipe.read_statements(path)
    path.write_text("")
    with pytest.raises(ValueError, match="holds no statement"):
        recipe.read_statements(path)


def test_what_cannot_be_probed_is_counted():
    rows = rows_of(("One.", 1, "a"), ("One.", 1, "b"), ("  ", 0, "a"), ("Two.", 0, "a"), ("Two.", 1, "c"),
                   ("word " * 600, 1, "d"), ("Three", 0, "e"))
    found = probe_languages.encode_statements(settings(), tokenizer.load(BASE), rows)["en"]
    assert found.dropped == {"duplicate": 1, "empty": 1, "both labels": 2, "more than 512 tokens": 1}
    assert found.labels == [1, 0] and found.groups == ["a", "e"] and len(found.last_tokens) == 2
    with pytest.raises(ValueError, match="no statement of en is left: {'empty': 1}"):
        probe_languages.encode_statements(settings(), tokenizer.load(BASE), rows_of((" ", 1, "a")))


@pytest.mark.parametrize("changes, message", [
    ({"models": []}, "models is empty"), ({"models": ["a", "a/"]}, "a folder twice"), ({"c": 0.0}, "c must be"),
    ({"feature": "x"}, "feature must be"), ({"scaling": "none"}, "scaling must be"),
    ({"splits": 0}, "must be positive"),
    ({"test_fraction": 1.0}, "test_fraction must"), ({"dtype": "float16"}, "dtype must"),
    ({"languages": None}, "languages= is"),
    ({"statements": "x", "verdicts": {"tokens": 1}}, "remove statements=")])
def test_settings_out_of_bounds(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


# ---------------------------------------------------------------------- the whole run

def test_a_run_from_statements_to_table(folder, tmp_path, capsys):
    path, out = tmp_path / "s.jsonl", tmp_path / "out"
    rows = statements.make_statements(world.make_facts(0), ["en", "kk"], 0)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"models=['{folder}']", f"out={out}", f"statements={path}", "c=0.1"]
    recipe.main(words)
    table = capsys.readouterr().out
    assert table.startswith("accuracy, %") and folder in table and "bag of tokens" in table
    result, = [json.loads(file.read_text()) for file in out.glob("*.json")]
    for language in result["languages"].values():
        assert len(language["layers"]) == 3 and language["layers"][0]["accuracy"] == 0.5
        assert set(language["controls"]) == set(recipe.CONTROLS)
        assert language["controls"]["bag of tokens"]["accuracy"] is not None
    similar = result["similarity"]
    assert similar["cosine"]["en"]["kk"] == similar["cosine"]["kk"]["en"]
    assert set(similar["reliability"]) == {"en", "kk"}
    assert not (out / "outcome.json").exists()  # of the tinyworld only
    file, = out.glob("*.json")
    file.write_text(file.read_text().replace('"first_layer": 0', '"first_layer": 0, "seen": 1'))
    recipe.main(words)
    assert "seen" in json.loads(file.read_text())  # the second run reads the first one's result
    recipe.main([*words, "feature=mlp_in", "scaling=own"])
    again = json.loads(file.read_text())
    assert "seen" not in again and again["similarity"] is None and len(again["languages"]["en"]["layers"]) == 2


def test_outcome_of_the_tinyworld(folder, tmp_path):
    recipe.main([f"models=['{folder}']", f"out={tmp_path}", "languages=['en', 'kk']"])
    found = outcomes.load(tmp_path / "outcome.json")
    assert found.system == "probing" and next(iter(found.controls)) == "low-resource languages"
    assert 0 <= found.method <= 100 and found.english_before == found.english_after > 0


def test_a_model_of_other_settings_is_refused(tmp_path, monkeypatch):
    def train(**changes):
        recipe.train_on_verdicts(settings(out=str(tmp_path), **{"verdicts": {"tokens": 1}, "languages": ["en"],
                                                                "documents": {"en": (2, 2)}} | changes), facts)
    facts = world.make_facts(0)
    monkeypatch.setattr(programs.subprocess, "run", lambda *a, **b: SimpleNamespace(returncode=0))
    train()
    train()
    for changes in ({"seed": 5}, {"documents": {"en": (3, 2)}}, {"verdicts": {"tokens": 2}}):
        with pytest.raises(ValueError, match="with other settings.*set out= to another one"):
            train(**changes)


def test_what_the_full_run_needs(capsys):
    """2 FLOP a token and weight of the layers' matrices, twice over the statements, at 0.4 of 989.5 TFLOP/s."""
    recipe.main(["configs/probing/full.py", "estimate=1_000_000_000"])
    matrices = 28 * (1536 * (1536 + 2 * 256) + 1536 * 1536 + 3 * 1536 * 8960)
    minutes = 2 * 2e9 * matrices / 0.4 / 989.5e12 / 60
    assert f"2,000.0 M tokens forward: {minutes:,.1f} minutes" in capsys.readouterr().out


def test_configs_load():
    for name in ("tiny", "full"):
        c, = load(recipe.Probing, argv=[f"configs/probing/{name}.py"])
        assert c.feature in probe.FEATURES
