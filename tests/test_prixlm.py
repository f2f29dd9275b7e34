"""evaluation/constrained.py and recipes/prixlm.py: the search equals scoring every entity, ranks are honest, the loss
is on the object and its end, and bad files are refused or counted."""
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import data
import tokenizer
from configs import load
from corpus import knowledge_base
from evaluation.constrained import (
    build_trie,
    encode_entities,
    filtered_rank,
    rank_answers,
    rank_candidates,
    rank_metrics,
)
from evaluation.programs import run_once
from generate import Decoding, generate
from model import ModelConfig, Qwen2
from recipes import prixlm as recipe
from tinyworld import world
from tinyworld.triples import make_knowledge_base

ROOT = Path(__file__).parent.parent
BASE = ROOT / "tinyworld/base"
END = 3
SMALL = ModelConfig(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, initializer_range=0.3, max_position_embeddings=64)


@pytest.fixture(scope="module")
def model():
    return Qwen2(SMALL).init_weights(0).eval()


@pytest.fixture(scope="module")
def t(tmp_path_factory):
    """The base's tokenizer with the recipe's template."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for file in tokenizer.list_tokenizer_files(BASE):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(recipe.TEMPLATE)
    return tokenizer.load(folder)


def candidates(count, seed, ids=(4, 12), longest=5):
    """Distinct lists of ids with END last; few ids, so that many begin others."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        found[(*(rng.randrange(*ids) for _ in range(rng.randint(1, longest))), END)] = None
    return list(found)


def brute_force(model, prompt, some):
    """log p of every candidate after a prompt, each on its own."""
    out = []
    for ids in some:
        text = torch.tensor([[*prompt, *ids]])
        logits = model.lm_head(model.hidden_states(text))[0].detach()
        logp = F.log_softmax(logits, -1)
        out.append(sum(float(logp[len(prompt) + n - 1, i]) for n, i in enumerate(ids)))
    return out


# ---------------------------------------------------------------------- the search

@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_equals_brute_force(model, seed, penalty):
    some, rng = candidates(30, seed), random.Random(seed)
    prompts = [[rng.randrange(4, 40) for _ in range(rng.randint(1, 9))] for _ in range(5)]
    ranked = rank_candidates(model, prompts, build_trie(some), len(some), batch_size=2, length_penalty=penalty)
    for prompt, found in zip(prompts, ranked):
        scores = [x / len(ids) ** penalty for x, ids in zip(brute_force(model, prompt, some), some)]
        assert [i for i, _ in found] == sorted(range(30), key=lambda i: -scores[i])
        assert [x for _, x in found] == pytest.approx([scores[i] for i, _ in found], abs=2e-5)


def test_a_narrow_beam_finds_only_candidates_with_their_scores(model):
    some, prompt = candidates(40, 7), [5, 9, 30]
    exact = brute_force(model, prompt, some)
    for beams in (1, 2, 5):
        found, = rank_candidates(model, [prompt], build_trie(some), beams)
        assert 0 < len(found) < 40 and len({i for i, _ in found}) == len(found)
        assert [x for _, x in found] == sorted((x for _, x in found), reverse=True)
        for i, x in found:
            assert x == pytest.approx(exact[i], abs=2e-5)
    assert rank_candidates(model, [prompt], build_trie(some), 1000)[0][0][0] == int(np.argmax(exact))


@pytest.mark.parametrize("beams", [1, 2, 3])
def test_the_beams_are_the_best_prefixes(model, beams):
    """Three prefixes; the search goes on from the likeliest ones, as many as there are beams."""
    some, prompt = [(4, 5, END), (7, 8, END), (9, 6, END)], [9, 10]
    logp = F.log_softmax(model.logits(torch.tensor([prompt])).detach(), -1)[0]
    best = sorted(range(3), key=lambda i: -logp[some[i][0]])[:beams]
    found, = rank_candidates(model, [prompt], build_trie(some), beams)
    assert {i for i, _ in found} == set(best)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beams", [2, 4, 30])
def test_generate_with_the_trie_as_allowed_next_finds_no_better_one(model, seed, beams):
    some, rng = candidates(30, seed), random.Random(seed)
    trie, prompts = build_trie(some), [[40 - n, *(rng.randrange(4, 34) for _ in range(n))] for n in range(1, 7)]
    lengths = {prompt[0]: len(prompt) for prompt in prompts}  # a prompt's first id tells which it is

    def allowed_next(ids):
        node = trie
        for i in ids[lengths[ids[0]]:]:
            node = node.children[i]
        return node.children

    found = generate(model, prompts, 6, {END}, Decoding(beams=beams, length_penalty=0.0), 3, allowed_next=allowed_next)
    ranked = rank_candidates(model, prompts, trie, beams, batch_size=3)
    best = [some[of_prompt[0][0]] for of_prompt in ranked]
    if beams == 30:
        assert [(*ids, END) for ids in found] == best
    else:  # it also drops what ends below the first `beams`
        scores = [brute_force(model, prompt, [(*ids, END), top]) for prompt, ids, top in zip(prompts, found, best)]
        assert all(theirs <= ours + 1e-4 for theirs, ours in scores)


def test_a_candidate_that_begins_another_is_found(model):
    some = [(4, END), (4, 5, END), (4, 5, 6, END)]
    found, = rank_candidates(model, [[8, 9]], build_trie(some), 3)
    assert {i for i, _ in found} == {0, 1, 2}


def test_results_do_not_depend_on_the_rows_beside(model):
    some, rng = candidates(20, 3), random.Random(3)
    prompts = [[rng.randrange(4, 40) for _ in range(n)] for n in (1, 12, 4)]
    together, alone = (rank_candidates(model, prompts, build_trie(some), 20, size) for size in (3, 1))
    for a, b in zip(together, alone):
        assert [i for i, _ in a] == [i for i, _ in b]
        assert [x for _, x in a] == pytest.approx([x for _, x in b], abs=2e-5)


@pytest.mark.parametrize("some, message", [
    ([], "no candidates"), ([()], "candidate 0 is empty"), ([(4, END), (4, END)], "candidate 1 equals candidate 0"),
    ([(4,), (4, 5)], "candidate 0 begins another"), ([(4, 5), (4,)], "candidate 1 begins another")])
def test_candidates_that_cannot_be_a_trie(some, message):
    with pytest.raises(ValueError, match=message):
        build_trie(some)


def test_searches_that_cannot_be(model):
    trie = build_trie([(4, END)])
    with pytest.raises(ValueError, match="beams and batch_size"):
        rank_candidates(model, [[1]], trie, 0)
    with pytest.raises(ValueError, match="a prompt is empty"):
        rank_candidates(model, [[1], []], trie, 2)
    with pytest.raises(ValueError, match="above max_position_embeddings=64"):
        rank_candidates(model, [[1] * 64], trie, 2)


# ---------------------------------------------------------------------- ranks

def test_ranks_of_a_knowledge_base_by_hand():
    """Five answers; two are right, and two score the same."""
    scores = {"a": -1.0, "b": -2.0, "c": -2.0, "d": -3.0, "e": -4.0}
    assert [filtered_rank(scores, name) for name in "abcde"] == [1, 3, 3, 4, 5]  # a tie counts against the answer
    assert filtered_rank(scores, "d", {"a", "d"}) == 3      # the other right answer does not count, the gold one does
    assert filtered_rank(scores, "c", {"a", "b", "c"}) == 1
    assert filtered_rank(scores, "x") is None
    metrics = rank_metrics([1, 3, 4, 12, None])
    assert metrics == {"hits@1": 0.2, "hits@3": 0.4, "hits@10": 0.6, "mrr": pytest.approx((1 + 1/3 + 1/4 + 1/12) / 5)}
    assert rank_metrics([]) == {"hits@1": None, "hits@3": None, "hits@10": None, "mrr": None}


def test_hits_at_1_is_at_most_mrr():
    rng = random.Random(0)
    for _ in range(50):
        metrics = rank_metrics([rng.choice([None, *range(1, 15)]) for _ in range(20)])
        assert metrics["hits@1"] <= metrics["mrr"] and metrics["hits@1"] <= metrics["hits@3"] <= metrics["hits@10"]


def test_names_are_encoded_as_answers_with_their_end(t):
    names = ["Miren", "the city of Miren", "<|im_end|>", "Miren", "word " * 40]
    found = encode_entities(t, names, 12)
    assert found.counts == {"more than 12 ids, left out": 1, "spells a control token, kept as text": 1}
    assert found.names == names[:3] and found.index == {name: i for i, name in enumerate(names[:3])}
    end, ends = t.added_tokens["<|im_end|>"], 0
    todo = [([], found.trie)]
    while todo:
        path, node = todo.pop()
        if node.candidate is not None:
            assert path[-1] == end and path.count(end) == 1
            assert t.decode(path[:-1], prefix=[end]).strip() == found.names[node.candidate]
            ends += 1
        todo += [([*path, i], child) for i, child in node.children.items()]
    assert ends == 3


class LowerCase:
    """A tokenizer that does not tell capital letters apart."""

    def encode_with_loss_mask(self, messages):
        answer = [*messages[1]["content"].lower().encode(), 0]
        return [1, *answer], [False] + [True] * len(answer)

    def contains_control_text(self, text):
        return False


def test_names_with_equal_ids_are_one_candidate():
    found = encode_entities(LowerCase(), ["B", "a", "A", "b"], 9)
    assert found.names == ["B", "a"] and found.index == {"B": 0, "a": 1, "A": 1, "b": 0}
    assert found.counts == {"same ids as another name, merged": 2}


def test_answers_are_ranked_and_must_be_entities(t):
    model = Qwen2(ModelConfig(vocab_size=8192, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                              num_attention_heads=2, num_key_value_heads=2)).init_weights(0).eval()
    entities = encode_entities(t, ["Miren", "Tolvar", "bread", "red"], 12)
    question = "Karvia\ncapital [en]"
    ranked = [rank_answers(model, t, entities, [(question, name)], {}, 4)[0] for name in entities.index]
    assert sorted(rank for rank, _ in ranked) == [1, 2, 3, 4] and len({best for _, best in ranked}) == 1
    all_known = {question: set(entities.index)}
    assert all(rank_answers(model, t, entities, [(question, name)], all_known, 4)[0][0] == 1 for name in entities.index)
    with pytest.raises(ValueError, match="'Orsin' to 'x' is none of the 4 entities"):
        rank_answers(model, t, entities, [("x", "Orsin")], {}, 4)


# ---------------------------------------------------------------------- rows

def test_the_loss_is_on_the_object_and_its_end(t):
    row, = knowledge_base.kb_rows("triples", [("en", "Karvia", "capital", "Miren")])
    ids, mask = t.encode_with_loss_mask(row["messages"])
    text = t.decode(ids, special=True)
    assert text == "<|im_start|> Karvia\ncapital [en]<|im_start|> Miren<|im_end|>"
    learned = [i for i, m in zip(ids, mask) if m]
    assert t.decode(learned, special=True) == " Miren<|im_end|>" and learned == ids[-len(learned):]
    assert ids[:len(ids) - len(learned)] == t.encode_chat(row["messages"][:1])
    link, = knowledge_base.kb_rows("links", [("en", "kk", "Karvia", "Карвия")])
    assert link["messages"][0]["content"] == "Karvia\n[en] [kk]" and link["messages"][1]["content"] == "Карвия"


def test_control_tokens_in_names_stay_text(t):
    row, = knowledge_base.kb_rows("triples", [("en", "a<|im_end|>b", "is", "c<|im_start|>")])
    ids, mask = t.encode_with_loss_mask(row["messages"])
    assert ids.count(t.added_tokens["<|im_start|>"]) == 2 and ids.count(t.added_tokens["<|im_end|>"]) == 1


def test_knowledge_base_of_the_tinyworld():
    facts = world.make_facts(1000)
    kb = make_knowledge_base(facts, ["en", "it", "kk"], 0, 0.3)
    assert kb == make_knowledge_base(facts, ["en", "it", "kk"], 0, 0.3)
    assert kb != make_knowledge_base(facts, ["en", "it", "kk"], 1, 0.3)
    by_language = {code: [row[1:3] for row in kb["triples"] if row[0] == code] for code in ("en", "it", "kk")}
    assert [len(by_language[code]) for code in by_language] == [168, 50, 50]
    assert len(kb["test_triples"]) == 2 * 118 and not set(kb["triples"]) & set(kb["test_triples"])
    for test in ("test_links", "test_words"):
        names = {(row[0], row[2]) for row in kb[test]}
        assert kb[test] and not names & {(row[0], row[2]) for row in kb["links"]}
    assert {row[:2] for row in kb["links"]} == {("en", "it"), ("it", "en"), ("en", "kk"), ("kk", "en")}


# ---------------------------------------------------------------------- files

def read(tmp_path, **files):
    paths = {}
    for kind in ("triples", "links", "test_triples", "test_links"):
        path = tmp_path / f"{kind}.tsv"
        path.write_text(files.get(kind, "en\tKarvia\tcapital\tMiren\n" if "triples" in kind else
                                  "en\tde\tKarvia\tKarwien\n"))
        paths[kind] = str(path)
    return knowledge_base.read_knowledge_base(paths, ["en", "de"])


def test_rows_are_counted_by_reason(tmp_path, capsys):
    kb = read(tmp_path, triples="en\tKarvia\tcapital\tMiren\n\nen\tKarvia\tcapital\tMiren\nen\ta\tb\n"
              "en\ta\tb\tc\td\nen\t\tb\tc\n")
    assert kb["triples"] == [("en", "Karvia", "capital", "Miren")]
    printed = capsys.readouterr().out
    for reason in ("'duplicate': 1", "'3 columns, not language subject relation object': 1", "'5 columns, not",
                   "'an empty name': 1"):
        assert reason in printed


@pytest.mark.parametrize("files, message", [
    ({"triples": "xx\ta\tb\tc\n"}, "triples.tsv, line 1: unknown language 'xx'; languages= has en de"),
    ({"links": "en\tde\ta\tb\nen\tfr\ta\tb\n"}, "links.tsv, line 2: unknown language 'fr'"),
    ({"test_links": "\n"}, "test_links.tsv: no row of language, language, name, name")])
def test_files_that_are_refused(tmp_path, files, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path, **files)


def test_leaks_are_counted():
    kb = {"triples": [("en", "a", "r", "b"), ("en", "c", "r", "d")], "links": [("en", "de", "a", "x")],
          "test_triples": [("en", "a", "r", "b"), ("en", "d", "r", "c"), ("en", "a", "s", "b"), ("de", "a", "r", "b")],
          "test_links": [("en", "de", "a", "x"), ("en", "de", "b", "y")]}
    assert knowledge_base.count_leaks(kb) == {
        "test_triples that are trained on": 1, "test_triples whose inverse is trained on": 1,
        "test_triples of a relation that is never trained on": 2, "test_links that are trained on": 1}


@pytest.mark.parametrize("changes, message", [
    ({"triples": "a"}, "triples=, links= and a test file are needed"), ({"beams": 0}, "must be positive"),
    ({"shares": {"triples": 1}}, "shares must be"), ({"known": 1.0}, "known must be"),
    ({"languages": ["de"]}, "add it to languages"), ({"related": ["fr"]}, "related=")])
def test_settings_out_of_bounds(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe.Prix(**{"out": "o", "model": "m", "languages": ["en", "de"]} | changes)


def test_a_folder_of_other_settings_is_refused(tmp_path):
    settings = dict(out=str(tmp_path), model=str(BASE), languages=["en"])
    run_once(str(tmp_path), "settings", {})
    with pytest.raises(ValueError, match="has the step 'settings' with other settings.*set out= to another one"):
        recipe.write_sources(recipe.Prix(**settings), {})


@pytest.mark.parametrize("changes", [{"known": 0.5}, {"train": {"tokens": 1}}, {"shares": {"triples": 1, "links": 2}},
                                     {"seed": 1}])
def test_settings_of_training_are_those_of_the_folder(tmp_path, monkeypatch, changes):
    """Those of the search may change; all others are refused."""
    monkeypatch.setattr(recipe, "run_step", lambda *a: None)
    settings = dict(out=str(tmp_path), model=str(BASE), languages=["en"])
    kb = {"triples": [("en", "a", "r", "b")], "links": []}
    recipe.write_sources(recipe.Prix(**settings), kb)
    recipe.write_sources(recipe.Prix(**settings, beams=3, batch=2, length_penalty=1.0), kb)
    with pytest.raises(ValueError, match="with other settings"):
        recipe.write_sources(recipe.Prix(**settings | changes), kb)


def test_a_tokenizer_without_the_tokens_of_the_template_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "load", lambda folder: SimpleNamespace(added_tokens={"</s>": 2}))
    with pytest.raises(ValueError, match="no <.im_end.> and <.im_start.>; set own_template=False"):
        recipe.write_sources(recipe.Prix(out=str(tmp_path), model=str(BASE), languages=["en"]), {})


def test_configs_load():
    for name in ("tiny", "full"):
        c, = load(recipe.Prix, argv=[str(ROOT / f"configs/prixlm/{name}.py")])
        assert c.length_penalty == 0 and c.beams == 50


def test_what_the_full_run_needs(tmp_path, capsys):
    recipe.main([str(ROOT / "configs/prixlm/full.py"), "estimate=True", f"out={tmp_path}"])
    printed = capsys.readouterr().out
    assert "1,543,714,304 parameters" in printed and "days for 2.0 B tokens" in printed


# ---------------------------------------------------------------------- the whole run

@pytest.mark.slow
def test_a_run_from_files_to_table(tmp_path, capsys):
    """Two steps of training: everything is wired up, and both models are ranked on the same questions."""
    kb = make_knowledge_base(world.make_facts(1000), ["en", "it"], 0, 0.3)
    words = [f"model={BASE}", f"out={tmp_path / 'out'}", "languages=['en', 'it']", "beams=4"]
    for name, rows in kb.items():
        (tmp_path / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows[:20]))
        words.append(f"{name}={tmp_path / name}.tsv")
    train = {"tokens": 512, "seq_len": 64, "batch_size": 4, "micro_batch_size": 4}
    recipe.main([*words, f"train={train}"])
    table = capsys.readouterr().out
    assert "with links: Hits@1" in table and "missing triples, it" in table and "held-out words, en-it" in table
    ranks = [json.loads(line) for line in (tmp_path / "out/with-links/ranks.jsonl").read_text().splitlines()]
    assert len(ranks) == sum(len(rows[:20]) for name, rows in kb.items() if name != "links")
    sources = {s.name: s for s in data.open_sources(str(tmp_path / "out/tokens"))}
    assert {s.kind for s in sources.values()} == {"chat"} and "triples-en" in sources
    assert not (tmp_path / "out/outcome.json").exists()


def test_outcome_pools_questions():
    rows = [{"task": "missing triples", "languages": "it", "n": 10, "hits@1": 0.5},
            {"task": "missing triples", "languages": "de", "n": 30, "hits@1": 0.1},
            {"task": "missing triples", "languages": "kk", "n": 5, "hits@1": 1.0}]
    assert recipe.pooled(rows, "missing triples", ["it", "de"]) == pytest.approx(20.0)
    assert recipe.pooled(rows, "missing triples", ["fr"]) is None
