"""eval.py: scores equal the model's own log-probabilities for any batch and process count; files, errors, resume."""
import contextlib
import gzip
import hashlib
import io
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import eval as evaluate
import generate
import tokenizer
from evaluation import aggregate, custom_tasks, documents, files, scoring, translation
from evaluation import results as results_
from evaluation import run as runners
from evaluation.scoring import encode_pair, loglikelihoods, total_logprobs
from model import ModelConfig, Qwen2

ROOT = Path(__file__).resolve().parent.parent
TEXT = ["The river is long.", "The house is green.", "Question: Where is the house?\nAnswer: by the river",
        "Сәлем, әлем!", "河很长。", "1 + 2 = 3",
        "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z "
        "a b c d e f g h i j k l m n o p q r s t u v w x y z . , ? !"] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random Qwen2 with its tokenizer, as a checkpoint folder."""
    out = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer.train(TEXT, 400, out)
    t = tokenizer.load(out)
    config = ModelConfig(vocab_size=t.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4,
                         num_key_value_heads=2, initializer_range=0.3)
    Qwen2(config).init_weights(5).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def model(folder):
    return Qwen2.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def t(folder):
    return tokenizer.load(folder)


def direct(model, ids, begin):
    """Sum of log p(ids[i] | ids[:i]) for i >= begin, one position at a time: no cache, no padding, no batch."""
    total = 0.0
    with torch.no_grad():
        for i in range(begin, len(ids)):
            logits = model.logits(torch.tensor([ids[:i]]))
            total += torch.log_softmax(logits[0].double(), -1)[ids[i]].item()
    return total


# ---------------------------------------------------------------------- pairs

@pytest.mark.parametrize("context, continuation", [
    ("The house is", " green."), ("The house is ", "green."), ("The house is \n", "green."),
    ("The house", " is green. It is"), ("河很", "长。"),
    ("Question: Where?\nAnswer:", " by the river"), (" The house", " is"),
])
def test_pair_is_the_joined_text(t, context, continuation):
    """Both parts are the ids of the joined text; space at the end of the context belongs to the continuation."""
    a, b = encode_pair(t, context, continuation)
    assert a + b == t.encode(context + continuation) and a == t.encode(context.rstrip()) and b


@pytest.mark.parametrize("context", ["", " ", "\n"])
def test_pair_without_a_context(t, context):
    """End-of-text stands for the empty context, and the white space is scored."""
    assert encode_pair(t, context, "green.") == ([t.eot_id], t.encode(context + "green."))


def test_one_bos_where_the_text_has_it(t, monkeypatch):
    """A chat template that writes BOS itself gets no second one."""
    monkeypatch.setattr(t, "bos_id", t.added_tokens["<|im_start|>"])
    assert scoring.encode(t, "<|im_start|>a").count(t.bos_id) == scoring.encode(t, "a").count(t.bos_id) == 1


def test_control_tokens_in_a_prompt_count(t):
    """As in the harness: a chat template writes them."""
    context, _ = encode_pair(t, "<|im_start|>user\nThe house<|im_end|>", " is")
    assert context[0] == t.added_tokens["<|im_start|>"] and context[-1] == t.added_tokens["<|im_end|>"]


# ---------------------------------------------------------------------- log-likelihoods

def some_pairs(t):
    """Shared and single contexts, of one id and of many, continuations of one id and of many, in no order."""
    contexts = ["The house is", "", "Question: Where is the house?\nAnswer:", "T", "The river is long. " * 6, "河"]
    endings = [" green.", " by the river", " x", " The river is long. The house is green.", "长"]
    pairs = [encode_pair(t, c, e) for i, c in enumerate(contexts) for e in endings[:1 + (3 * i + 2) % 5]]
    return pairs[::2] + pairs[1::2] + pairs[:1]


def test_loglikelihoods_equal_log_softmax(model, t):
    pairs = some_pairs(t)
    assert len({tuple(c) for c, _ in pairs}) == 6 and min(len(c) for c, _ in pairs) == 1
    assert len({len(e) for _, e in pairs}) > 2
    got = [x for x, _ in loglikelihoods(model, pairs, 8192)]
    wanted = [direct(model, a + b, len(a)) for a, b in pairs]
    assert got == pytest.approx(wanted, abs=2e-4)
    assert max(wanted) < -1 and len({round(x, 2) for x in wanted}) > 10  # the numbers differ: the test can fail


def test_bos_stands_before_every_context(t, monkeypatch):
    """Llama's: in front of a context, and instead of the end-of-text id where there is none."""
    plain, empty = encode_pair(t, "The house", " is"), encode_pair(t, "", "is")
    monkeypatch.setattr(t, "bos_id", 7)
    monkeypatch.setattr(scoring, "empty_context_id", lambda t: 7)
    assert encode_pair(t, "The house", " is") == ([7, *plain[0]], plain[1])
    assert encode_pair(t, "", "is") == ([7], empty[1])


def test_no_probability_is_above_one():
    """Of a vocabulary of one word it is 1 to the bit, whatever the order of the sums."""
    c = ModelConfig(vocab_size=1, hidden_size=32, intermediate_size=48, num_hidden_layers=1, initializer_range=0.3)
    model = Qwen2(c).init_weights(1)
    scores = [x for x, _ in loglikelihoods(model, [([0] * n, [0] * k) for n in range(1, 20) for k in (1, 5)], 64)]
    assert max(scores) == 0 and min(scores) > -1e-5


@pytest.mark.parametrize("batch_tokens", [1, 40, 100, 500, 8192])
def test_loglikelihoods_do_not_depend_on_the_batch(model, t, batch_tokens):
    pairs = some_pairs(t)
    alone = [loglikelihoods(model, [p], 8192)[0] for p in pairs]
    for some, order in ((pairs, 1), (pairs[::-1], -1)):
        got = loglikelihoods(model, some, batch_tokens)[::order]
        assert [x for x, _ in got] == pytest.approx([x for x, _ in alone], abs=2e-4)
        assert [greedy for _, greedy in got] == [greedy for _, greedy in alone]


def test_is_greedy(model, t):
    """True for what the model would say itself, and only then."""
    context = t.encode("The house is")
    said = generate.generate(model, [context], 4)[0]
    wrong = [*said[:2], (said[2] + 1) % t.vocab_size, said[3]]
    got = loglikelihoods(model, [(context, said), (context, wrong), (context, said[:1]), (context, wrong[:3])], 100)
    assert [greedy for _, greedy in got] == [True, False, True, False]


@pytest.mark.parametrize("length", [2, 7, 12])
def test_too_long_pairs_lose_their_beginning(model, t, length):
    """The input is the last max_length ids before the last one; the continuation is whole."""
    context = t.encode("The river is long. The house is")
    pairs = [(context, t.encode(" green"[:1 + 3 * i])[:2]) for i in range(2)] + [([5], [9, 8])]
    got = loglikelihoods(model, pairs, 100, length)
    wanted = [direct(model, (a + b)[-length - 1:], len((a + b)[-length - 1:]) - len(b)) for a, b in pairs]
    assert [x for x, _ in got] == pytest.approx(wanted, abs=2e-4)
    with pytest.raises(ValueError, match="pair 0: .* at most max_length=2"):
        loglikelihoods(model, [([1], [1, 2, 3])], 100, 2)
    with pytest.raises(ValueError, match="at least one"):
        loglikelihoods(model, [([1], [])], 100)


def test_shared_beginnings_form_a_tree():
    """Two passages behind one header, two questions each: the header is a node, and each passage below it."""
    head, a, b = list(range(20)), list(range(100, 120)), list(range(200, 220))
    texts = sorted([[*head, *a, 1], [*head, *a, 2, 3], [*head, *b, 1], [*head, *b, 2], [7, 7, 7]])
    nodes, parents = generate.prefix_tree(texts, [len(x) - 1 for x in texts])
    lengths = sorted((length, None if above is None else nodes[above][1]) for _, length, above in nodes)
    assert lengths == [(20, None), (40, 20), (40, 20)]
    assert [p and nodes[p][1] for p in parents] == [40, 40, 40, 40, None]
    assert parents[0] == parents[1] != parents[2] == parents[3]
    capped, _ = generate.prefix_tree(texts, [30] * 5)
    assert sorted(length for _, length, _ in capped) == [20, 30, 30]  # no more than may be shared


def test_shared_beginnings_run_once(model, monkeypatch):
    seen, hidden_states = [], type(model).hidden_states
    monkeypatch.setattr(type(model), "hidden_states",
                        lambda self, tokens, *a: (seen.append(tokens.numel()), hidden_states(self, tokens, *a))[1])
    head = list(range(10, 110))
    loglikelihoods(model, [([*head, i, i + 1], [j]) for i in range(8) for j in range(4)], 8192)
    assert sum(seen) <= 100 + 8 * 3  # the header once, two ids of each question, and the letters for nothing

def test_no_pairs(model):
    assert loglikelihoods(model, [], 100) == []


def test_same_pair_twice(model, t):
    pair = encode_pair(t, "The house is", " green.")
    a, b = loglikelihoods(model, [pair, pair], 100)
    assert a == b


@pytest.mark.parametrize("batch_tokens", [1, 30, 8192])
def test_total_logprobs(model, t, batch_tokens):
    texts = "The river is long.", "河", "T", "The house is green. " * 8, "Сәлем, әлем!", "河"
    documents = [t.encode(x) for x in texts]
    got = total_logprobs(model, documents, batch_tokens, t.eot_id)
    assert got == pytest.approx([direct(model, [t.eot_id, *d], 1) for d in documents], abs=5e-4)
    assert total_logprobs(model, [], batch_tokens, t.eot_id) == []


def windows_of_lm_eval(ids, prefix, L):
    """lm_eval.utils.get_rolling_token_windows and make_disjoint_window, with one token of context, in other words."""
    out, done = [], 0
    while done < len(ids):
        n = min(L, len(ids) - done)
        end = done + n
        inputs = ([prefix, *ids])[max(0, end - L):end]
        out.append((inputs, ids[done:end]))
        done = end
    return out


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 17, 23, 24])
def test_rolling_windows(n):
    ids = list(range(100, 100 + n))
    windows = scoring.rolling_windows(ids, 0, 8)
    assert [(inputs, [x for x in targets if x != scoring.IGNORE]) for inputs, targets in windows] \
        == windows_of_lm_eval(ids, 0, 8)
    assert all(len(inputs) == len(targets) <= 8 for inputs, targets in windows)
    assert [x for _, targets in windows for x in targets if x != scoring.IGNORE] == ids
    assert len(windows) == 1 or len(windows[-1][0]) == 8  # the last one has as much context as fits


@pytest.mark.parametrize("length, max_length", [(21, 8), (33, 16), (40, 39)])
def test_long_documents_are_scored_in_windows(model, t, length, max_length):
    ids = (t.encode("The river is long. The house is green. " * 9))[:length]
    expected = sum(direct(model, inputs + answer[-1:], len(inputs) - len(answer) + 1)
                   for inputs, answer in windows_of_lm_eval(ids, t.eot_id, max_length))
    for batch_tokens in (1, 100):
        got = total_logprobs(model, [ids, ids[:3]], batch_tokens, t.eot_id, max_length)
        assert got == pytest.approx([expected, direct(model, [t.eot_id, *ids[:3]], 1)], abs=5e-4)
    whole = direct(model, [t.eot_id, *ids], 1)
    assert abs(expected - whole) > 1e-2  # less context: another number


# ---------------------------------------------------------------------- tasks

def settings(tmp_path, tasks, **more):
    return evaluate.Eval(**dict(model="m", tasks=tasks, data=str(tmp_path), languages=["en"]) | more)


def run(tmp_path, task, model, t, lang="en", **more):
    """(documents, samples, {metric: row of scores}) of a task of one's own."""
    c = settings(tmp_path, [task], **{"languages": [lang], "batch_tokens": 1024} | more)
    one = evaluate.select_tasks(c)[0]
    docs, complaints, _ = evaluate.load_documents(c, one, t)
    samples = runners.RUNNERS[one["kind"]](c, one, docs, model, t)
    return docs, samples, {row[0]: row[1:] for row in aggregate.score_samples(one, samples)}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize("first, golds", [(0, [0, "2", 1]), (1, ["1", 3, 2]), ("A", ["A", "C", " B "])])
def test_planted_choices(tmp_path, t, monkeypatch, first, golds):
    """Scores are planted so that the choices 0, 2 and 0 win: two of three are right by the sum, one by the rate."""
    write(tmp_path / "c/en.jsonl", jsonl({"q": f"item {i}", "x": "a", "y": "b" * 10, "z": "c", "gold": g} for i,
                                         g in enumerate(golds)))
    task = dict(name="c", kind="choice", path="c/{lang}.jsonl", context="{word} {q}", choices=["{x}", "{y}", "{z}"],
                gold="gold", first=first)
    seen = []

    def planted(model, pairs, batch_tokens, max_length):
        seen.extend(pairs)
        return [(x, False) for x in (-1.0, -9.0, -2.0, -4.0, -9.0, -3.0, -1.0, -5.0, -2.0)]

    monkeypatch.setattr(runners, "loglikelihoods", planted)
    _, samples, found = run(tmp_path, task, None, t, labels={"en": {"word": "Label"}}, max_length=100)
    assert [(s["acc"], s["acc_norm"]) for s in samples] == [(1, 0), (1, 0), (0, 1)]  # by rate the long choice wins
    assert samples[1]["pairs"][1] == {"context": "Label item 1", "continuation": " " + "b" * 10, "loglikelihood": -9.0,
                                      "is_greedy": False}
    assert seen[4] == encode_pair(t, "Label item 1", " " + "b" * 10)
    assert list(found) == ["acc", "acc_norm"]
    assert (found["acc"][0], found["acc_norm"][0]) == pytest.approx((2 / 3, 1 / 3))
    assert found["acc"][1] == pytest.approx(math.sqrt(2 / 9 / 2))
    assert found["acc"][2:4] == pytest.approx((0.2077, 0.9385), abs=1e-3)


def test_choice_with_a_real_model(tmp_path, model, t):
    """The choice with the highest direct log-probability is taken: planted as gold, accuracy is 1; any other, 0."""
    items, best = [], []
    for x in ("The house is", "The river", "Question: Where?", "河", "1 + 2 ="):
        options = [" green", " long.", " by the river", " 3"]
        scores = [direct(model, a + b, len(a)) for a, b in (encode_pair(t, x, o) for o in options)]
        best.append(scores.index(max(scores)))
        items.append({"x": x, **{f"o{j}": o.strip() for j, o in enumerate(options)}})
    for shift, wanted in ((0, 1.0), (1, 0.0)):
        write(tmp_path / "c/en.jsonl", jsonl(dict(item, gold=(b + shift) % 4) for item, b in zip(items, best)))
        task = dict(name="c", kind="choice", path="c/{lang}.jsonl", context="{x}",
                    choices=["{o0}", "{o1}", "{o2}", "{o3}"], gold="gold")
        assert run(tmp_path, task, model, t)[2]["acc"][0] == wanted


@pytest.mark.parametrize("first, gold", [(0, 3), (0, -1), (1, 0), (1, "4"), ("A", "D"), ("A", "@"), ("A", "a")])
def test_gold_out_of_range(first, gold):
    with pytest.raises(ValueError, match=r"task c: gold=.* names none of the 3 choices"):
        custom_tasks.gold_index(dict(name="c", gold="gold", first=first), {"gold": gold}, 3)


@pytest.mark.parametrize("first, gold", [(0, "B"), (0, ""), (0, None), ("A", "AB"), ("A", ""), ("A", 1)])
def test_gold_of_the_wrong_kind_names_the_task(first, gold):
    """A wrong `first` is the likeliest mistake in a new row of the table: the message must say where to look."""
    with pytest.raises(ValueError, match="task c"):
        custom_tasks.gold_index(dict(name="c", gold="gold", first=first), {"gold": gold}, 3)


def test_bits_per_byte_by_hand(tmp_path, model, t):
    texts = ["The river is long.", "河很长。", "Сәлем!"]
    write(tmp_path / "f/en.txt", "\n".join(texts) + "\n\n")
    task = dict(name="f", kind="bpb", path="f/{lang}.txt")
    _, samples, found = run(tmp_path, task, model, t)
    logps = [direct(model, [t.eot_id, *t.encode(x)], 1) for x in texts]
    assert [s["bytes"] for s in samples] == [18, 12, 11]
    assert [s["bits"] for s in samples] == pytest.approx([-x / math.log(2) for x in logps], abs=1e-3)
    planted = [{"bits": a, "bytes": b} for a, b in ((10.0, 5), (30.0, 10), (20.0, 5))]
    (name, rate, spread, low, high, _), = aggregate.score_samples({"kind": "bpb"}, planted)
    assert (name, rate) == ("bits_per_byte", 3.0)
    assert (low, high) == pytest.approx((3 - 1.96 * spread, 3 + 1.96 * spread))
    assert spread == pytest.approx(math.sqrt((25 + 0 + 25) * 3 / 2) / 20)  # residuals -5, 0 and 5 bits
    assert aggregate.score_samples({"kind": "bpb"}, [{"bits": 8.0, "bytes": 4}])[0][1:3] == (2.0, 0.0)


def test_translate_on_a_stub(tmp_path, t, monkeypatch):
    write(tmp_path / "f/en.txt", "one\ntwo\nthree\n")
    write(tmp_path / "f/kk.txt", "bir\neki\nüsh\n")
    asked = {}

    def stub(model, prompts, max_new_tokens, stop, batch_size, tokenizer, stop_strings):
        asked.update(prompts=[t.decode(p) for p in prompts], max_new_tokens=max_new_tokens, stop=stop,
                     stop_text=stop_strings)
        return [t.encode(x) for x in (" bir\nand more", "eki ", "")]

    monkeypatch.setattr(runners, "generate", stub)
    monkeypatch.setattr(runners, "eos_ids", lambda t, folder: {t.eot_id})
    task = dict(name="tr", kind="translate", path="f/{lang}.txt", pairs=["en-kk"], prompt="{src} {x} = {tgt}:",
                max_new_tokens=7)
    _, samples, found = run(tmp_path, task, None, t, max_length=100,
                            language_names={"en": "English", "kk": "Kazakh"})
    assert [(s["response"], s["gold"], s["empty"]) for s in samples] == [
        (" bir", ["bir"], 0), ("eki ", ["eki"], 0), ("", ["üsh"], 1)]
    assert asked["prompts"] == ["English one = Kazakh:", "English two = Kazakh:", "English three = Kazakh:"]
    assert asked["max_new_tokens"] == 7 and t.eot_id in asked["stop"] and asked["stop_text"] == ["\n"]
    assert list(found) == ["chrf++", "bleu"]


def test_translation_scores_are_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    pairs = [("the cat is on the mat", "the cat sat on the mat today"),
             ("hello there my friend", "hello there my friend")]
    hyps, refs = zip(*pairs)
    scores = {row[0]: row[1:] for row in translation.score_translations(hyps, refs, "en", custom=True)}
    assert scores["bleu"][0] == pytest.approx(sacrebleu.corpus_bleu(hyps, [refs]).score)
    assert scores["chrf++"][0] == pytest.approx(sacrebleu.corpus_chrf(hyps, [refs], word_order=2).score)
    assert scores["bleu"][-1].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "nw:2" in scores["chrf++"][-1]
    assert scores["chrf++"][2] < scores["chrf++"][0] < scores["chrf++"][3]
    tokenizers = {"zh": "zh", "ja": "char", "kk": "13a", "ko": "13a", "th": "char", "lo": "char", "km": "char",
                  "my": "char", "tha_Thai": "char", "lao_Laoo": "char", "khm_Khmr": "char", "mya_Mymr": "char"}
    for tgt, tok in ((target, f"tok:{name}") for target, name in tokenizers.items()):
        signatures = {row[0]: row[-1] for row in translation.score_translations(hyps, refs, tgt, custom=True)}
        assert tok in signatures["bleu"]
        assert ("words:whitespace" in signatures["chrf++"]) == (tgt not in ("kk", "ko"))


def test_spbleu_is_found_or_said_to_be_missing(tmp_path, monkeypatch, capsys):
    """In sacreBLEU's own place, with its hash in the signature; without it the other scores remain."""
    pytest.importorskip("sacrebleu")
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    translation.print_once.cache_clear()
    assert [row[0] for row in translation.score_translations(["a b"], ["a b"], "deu_Latn")] == ["chrf++", "bleu"]
    assert str(tmp_path / "models" / "flores200sacrebleuspm") in capsys.readouterr().err
    import sacrebleu.tokenizers.tokenizer_spm as spm
    monkeypatch.setattr(spm, "SACREBLEU_DIR", str(tmp_path), raising=False)
    tokenizer.train(TEXT, 400, tmp_path / "spm")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "flores200sacrebleuspm").write_bytes((tmp_path / "spm" / "tokenizer.model").read_bytes())
    code = ("from evaluation import translation; row = translation.score_translations("
            "['The river is long.', 'The house'], ['The river is long.', 'A house'], 'deu_Latn')[0]; "
            "print(row[0], row[1] > 10, row[-1])")  # a new process: sacreBLEU reads the variable when it is imported
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                         env={**os.environ, "SACREBLEU": str(tmp_path)})
    digest = hashlib.sha256((tmp_path / "spm" / "tokenizer.model").read_bytes()).hexdigest()[:16]
    assert out.stdout.startswith("spbleu True"), out.stderr
    assert "tok:flores200" in out.stdout and f"spm:{digest}" in out.stdout


# ---------------------------------------------------------------------- files

def found(tmp_path, name, text, **more):
    write(tmp_path / f"x/en{name}", text)
    if "where" not in more and "limit" not in more:
        return [row for _, row, _ in files.read_benchmark_file(tmp_path / f"x/en{name}")]
    c = settings(tmp_path, [dict(name="x", kind="choice", path="x/{lang}" + name, context="", choices=["{A}"],
                                 gold="g") | more])
    task = evaluate.select_tasks(c)[0] | {"gold": lambda r: 0}
    return [doc["row"] for doc in documents.read_documents(c, task, "test", task["limit"])[0]]


def test_rows(tmp_path):
    assert found(tmp_path, ".jsonl", '{"text": "a"}\n\n{"text": "b"}\n') == [{"text": "a"}, {"text": "b"}]
    assert found(tmp_path, ".csv", 'Q,A\n"one, two",x\n"two\nlines",y\n') == [
        {"Q": "one, two", "A": "x"}, {"Q": "two\nlines", "A": "y"}]
    assert found(tmp_path, ".tsv", "Q\tA\none\tx\n") == [{"Q": "one", "A": "x"}]
    assert found(tmp_path, ".txt", "one\n \ntwo\u2028still two\n") == [{"text": "one"}, {"text": "two\u2028still two"}]
    assert found(tmp_path, ".tsv", "Q\tA\n1\tx\n2\ty\n3\tx\n", where={"A": "x"}) == [
        {"Q": "1", "A": "x"}, {"Q": "3", "A": "x"}]
    assert len(found(tmp_path, ".csv", "Q,A\n1,x\n2,y\n3,x\n", limit=2)) == 2


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0c"])
def test_separators_inside_a_row_do_not_split_it(tmp_path, separator):
    text = f"one{separator}two"
    raw = json.dumps({"text": text}, ensure_ascii=False) + "\n"
    assert found(tmp_path, ".jsonl", raw) == [{"text": text}]
    assert found(tmp_path, ".tsv", f"text\tA\n{text}\tx\n") == [{"text": text, "A": "x"}]


def test_quotes_in_tsv_and_csv(tmp_path):
    assert found(tmp_path, ".csv", 'text,A\n"he said ""no""",x\n') == [{"text": 'he said "no"', "A": "x"}]


@pytest.mark.parametrize("name, text, more, message", [
    (".txt", " \n", {}, "no items in .*en.txt"), (".csv", "Q,A\n1,x\n", {"where": {"A": "y"}}, "no items in .*en.csv"),
    (".xml", "<a/>", {}, "unknown format; expected .jsonl, .json, .csv, .tsv, .parquet, .txt"),
    (".jsonl", '{"txt": 1}\n[]\nno\n', {}, "the first of 3 malformed rows is .*en.jsonl, line 1: it lacks 'text'"),
])
def test_files_without_items(tmp_path, name, text, more, message):
    write(tmp_path / f"x/en{name}", text)
    c = settings(tmp_path, [dict(name="x", kind="bpb", path="x/{lang}" + name) | more])
    with pytest.raises(ValueError, match=message):
        evaluate.load_documents(c, evaluate.select_tasks(c)[0], None)


def packed(kind, texts):
    """The bytes of a benchmark file of one column, `text`."""
    if kind == ".jsonl.gz":
        return gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in texts).encode())
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), file, compression="zstd", use_dictionary=False)
    return file.getvalue()


@pytest.mark.parametrize("kind", [".parquet", ".jsonl.gz"])
def test_packed_files(tmp_path, monkeypatch, kind):
    """Whole, cut, of another format, and a small one that expands beyond the limit."""
    path = tmp_path / f"x/en{kind}"
    path.parent.mkdir()
    c = settings(tmp_path, [dict(name="x", kind="bpb", path=f"x/{{lang}}{kind}")])
    path.write_bytes(packed(kind, ["one", "two"]))
    assert evaluate.load_documents(c, evaluate.select_tasks(c)[0], None)[0] == [{"text": "one"}, {"text": "two"}]
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 20)
    for raw, message in ((packed(kind, ["one", "two"] * 999)[:-9], "cannot be read .*download it again"),
                         (b"<html>no such page</html>", "cannot be read .*download it again"),
                         (packed(kind, ["x" * (1 << 20)]), "has more than 1 MiB of data")):
        files.read_version.cache_clear()
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=rf"en{kind} {message}"):
            evaluate.load_documents(c, evaluate.select_tasks(c)[0], None)


def test_malformed_rows_are_named_and_counted(tmp_path):
    write(tmp_path / "x/en.jsonl", '{"text": "a"}\nno\n\n{"text": "b"}\n{"txt": "b"}\n')
    c = settings(tmp_path, [dict(name="x", kind="bpb", path="x/{lang}.jsonl")])
    docs, complaints, _ = evaluate.load_documents(c, evaluate.select_tasks(c)[0], None)
    assert docs == [{"text": "a"}, {"text": "b"}]
    assert [x.split("x/en.jsonl, ")[1] for x in complaints] == [
        "line 2: not JSON: Expecting value at column 1", "line 5: it lacks 'text'; its columns are txt"]


def test_a_right_answer_that_is_no_choice_stops(tmp_path):
    write(tmp_path / "x/en.jsonl", '{"a": "1", "gold": 0}\n{"a": "1", "gold": 2}\n')
    c = settings(tmp_path, [dict(name="x", kind="choice", path="x/{lang}.jsonl", context="", choices=["{a}", "b"],
                                 gold="gold")])
    with pytest.raises(ValueError, match=r"x/en.jsonl, line 2: task x: gold=2 names none of the 2 choices \(0, 1\)"):
        evaluate.load_documents(c, evaluate.select_tasks(c)[0], None)
    for wrong in (4, -1, "E"):
        with pytest.raises(ValueError, match="is none of the 4 choices"):
            documents.choice_index({"name": "x"}, wrong, 4)


def test_missing_file(tmp_path):
    c = settings(tmp_path, [dict(name="x", kind="bpb", path="x/{lang}.txt")])
    with pytest.raises(ValueError, match=r"task x: .*en.txt is missing; correct data="):
        evaluate.load_documents(c, evaluate.select_tasks(c)[0], None)


def test_unaligned_lines(tmp_path, t):
    write(tmp_path / "f/en.txt", "one\ntwo\n")
    write(tmp_path / "f/kk.txt", "bir\n")
    c = settings(tmp_path, [dict(name="tr", kind="translate", path="f/{lang}.txt", pairs=["en-kk"], prompt="{x}")],
                 language_names={"en": "English", "kk": "Kazakh"})
    with pytest.raises(ValueError, match="task tr: .*en.txt has 2 lines, .*kk.txt 1; they must be aligned"):
        evaluate.load_documents(c, evaluate.select_tasks(c)[0], t)


@pytest.mark.parametrize("task, message", [
    (dict(name="x", kind="rank", path="p"), "task x: kind is 'rank'; the kinds are bpb, choice, translate, chat"),
    (dict(name="x"), "kind is None"),
    (dict(name="x", kind="choice", path="p"), "a choice task needs name, choices, context, gold, path"),
        (dict(kind="bpb", path="p"), "needs name"),
    (dict(name="x", kind="translate", path="p", pairs=[]), "needs name, pairs, path, prompt"),
])
def test_bad_rows_of_the_table(task, message):
    with pytest.raises(ValueError, match=message):
        evaluate.Eval(model="m", tasks=[task], data="d", languages=["en"])


# ---------------------------------------------------------------------- the program

@pytest.fixture(scope="module")
def data(tmp_path_factory):
    base = tmp_path_factory.mktemp("benchmarks")
    for lang, word in (("en", "house"), ("kk", "үй"), ("zh", "房")):
        write(base / f"f/{lang}.txt", "".join(f"{word} {i}.\n" for i in range(7)))
        rows = [{"q": f"{word} {i}", "a": word, "b": "x", "label": i % 2} for i in range(7)]
        write(base / f"c/{lang}.jsonl", jsonl(rows))
    return base


TASKS = [dict(name="f", kind="bpb", path="f/{lang}.txt"),
         dict(name="c", kind="choice", path="c/{lang}.jsonl", context="{ask} {q}", choices=["{a}", "{b}"],
              gold="label"),
         dict(name="tr", kind="translate", path="f/{lang}.txt", pairs=["en-kk", "zh-en"],
              prompt="{src}: {x}\n{tgt}:", max_new_tokens=4)]


def words(folder, data, out, **more):
    base = dict(model=str(folder), data=str(data), out=str(out), tasks=TASKS, languages=["en", "kk"], threads=1,
                language_names={"en": "English", "kk": "Kazakh", "zh": "Chinese"},
                labels={k: {"ask": "Which?"} for k in ("en", "kk")}) | more
    return [f"{k}={v!r}" for k, v in base.items()]


def lines(out):
    return [json.loads(line) for line in Path(out).read_text().split("\n") if line]


def keys_of(rows):
    return {(r["task"], r["lang"], r["metric"]) for r in rows}


@pytest.fixture(scope="module")
def results(folder, data, tmp_path_factory):
    pytest.importorskip("sacrebleu")
    out = tmp_path_factory.mktemp("results") / "results.jsonl"
    evaluate.main(words(folder, data, out))
    return out


def test_lines_say_what_was_measured(results, folder, t):
    found_ = lines(results)
    assert [(r["task"], r["lang"], r["metric"]) for r in found_] == \
        [("f", "en", "bits_per_byte"), ("f", "kk", "bits_per_byte")] + [("c", k, m) for k in ("en", "kk")
            for m in ("acc", "acc_norm")] + \
        [("tr", p, m) for p in ("en-kk", "zh-en") for m in ("chrf++", "bleu")]
    for r in found_:
        assert r["n"] == 7 and r["shots"] == 0 and r["checkpoint"] == "tiny" and r["tokenizer"] == t.fingerprint
        assert len(r["weights"]) == 16 and len(r["prompt"]) == 12
        assert (r["task"] == "tr") == (r["signature"] is not None) and r["low"] <= r["score"] <= r["high"]


def test_scores_do_not_depend_on_the_batch(results, folder, data, tmp_path):
    evaluate.main(words(folder, data, tmp_path / "r.jsonl", batch_tokens=300))
    for a, b in zip(lines(results), lines(tmp_path / "r.jsonl"), strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=2e-5)
        assert {k: v for k, v in a.items() if k not in ("score", "stderr")} == {k: v for k,
            v in b.items() if k not in ("score", "stderr")}


def test_a_small_batch_still_translates(results, folder, data, tmp_path):
    evaluate.main(words(folder, data, tmp_path / "r.jsonl", batch_tokens=100, tasks=TASKS[2:]))
    expected = [r["score"] for r in lines(results) if r["task"] == "tr"]
    assert [r["score"] for r in lines(tmp_path / "r.jsonl")] == expected


def test_a_second_run_adds_nothing(results, folder, data, tmp_path):
    out = tmp_path / "r.jsonl"
    out.write_bytes(results.read_bytes())
    evaluate.main(words(folder, data, out))
    assert out.read_bytes() == results.read_bytes()
    evaluate.main(words(folder, data, out, languages=["en", "kk", "zh"],
                        labels={k: {"ask": "Which?"} for k in ("en", "kk", "zh")}))
    new = lines(out)[len(lines(results)):]
    assert [(r["task"], r["lang"]) for r in new] == [("f", "zh"), ("c", "zh"), ("c", "zh")]  # only what is missing
    evaluate.main(words(folder, data, out, checkpoint="another"))
    assert len(lines(out)) == 2 * len(lines(results)) + 3


@pytest.mark.parametrize("change", [dict(limit=3), dict(labels={"en": {"ask": "What?"}}),
                                    dict(tasks=[dict(TASKS[1], context="{q}")])],
                         ids=["limit", "labels", "prompt"])
def test_other_questions_are_another_measurement(folder, data, tmp_path, change):
    """A line answers for the same items and the same prompt only; a trial with a limit must not stand for the whole."""
    out = tmp_path / "r.jsonl"
    one = dict(tasks=TASKS[1:2], languages=["en"])
    evaluate.main(words(folder, data, out, **one | change))
    evaluate.main(words(folder, data, out, **one))
    assert len(lines(out)) == 4 and [r["n"] for r in lines(out)[2:]] == [7, 7]


def test_resume_after_a_kill_between_two_metrics(results, folder, data, tmp_path):
    """acc is written, acc_norm is not: the next run measures both, and each stands once. Other rows stay."""
    out, other = tmp_path / "r.jsonl", json.dumps({"checkpoint": "other", "task": "c", "lang": "en", "lines": 2}) + "\n"
    out.write_text(other + "".join(line + "\n" for line in results.read_text().split("\n")[:3]))
    evaluate.main(words(folder, data, out))
    first, *rows = lines(out)
    assert keys_of(rows) == keys_of(lines(results)) and len(rows) == len(lines(results))
    assert first == json.loads(other)


def test_resume_after_a_kill_within_a_line(results, folder, data, tmp_path):
    out = tmp_path / "r.jsonl"
    raw = results.read_text()
    out.write_text(raw[:raw.index("\n") + 40])
    evaluate.main(words(folder, data, out))
    whole = []
    for line in out.read_text().split("\n"):
        try:
            whole.append(json.loads(line))
        except json.JSONDecodeError:
            pass  # the torn line may stay, but it must not swallow the next one
    assert keys_of(whole) == keys_of(lines(results))


def test_a_result_that_is_no_text_is_measured_again(results, folder, data, tmp_path):
    """A flipped byte, of the results and of the samples."""
    out = tmp_path / "results.jsonl"
    for name, word in (("results.jsonl", b"metric"), ("samples.jsonl", b"doc_id")):
        raw = bytearray(results.with_name(name).read_bytes())
        raw[raw.index(word)] = 0xe3
        (tmp_path / name).write_bytes(raw)
    evaluate.main(words(folder, data, out))
    whole = []
    for line in out.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            whole.append(json.loads(line))
    assert keys_of(whole) == keys_of(lines(results))


def test_the_results_folder_is_made(folder, data, tmp_path):
    out = tmp_path / "new" / "r.jsonl"
    evaluate.main(words(folder, data, out, tasks=TASKS[:1]))
    assert len(lines(out)) == 2


def test_no_file_is_written_without_out(folder, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evaluate.main([w for w in words(folder, data, "", tasks=TASKS[:1]) if not w.startswith("out=")])
    assert not list(tmp_path.iterdir()) and "tiny f en: bits_per_byte" in capsys.readouterr().out


def test_a_tokenizer_larger_than_the_model(folder, data, tmp_path):
    other = tmp_path / "other"
    Qwen2(ModelConfig(vocab_size=100, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                      num_attention_heads=2)).init_weights(0) \
        .save_pretrained(other)
    (other / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    with pytest.raises(ValueError, match="its tokenizer has 400 ids, its model 100 rows"):
        evaluate.main(words(other, data, tmp_path / "r.jsonl"))


@pytest.mark.slow
def test_two_processes_write_the_same_lines(results, folder, data, tmp_path):
    """An odd number of items over two ranks, and fewer items than ranks."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               str(ROOT / "eval.py")]
    for name, more in (("whole", {}), ("single", dict(limit=1))):
        done = subprocess.run([*command, *words(folder, data, tmp_path / f"{name}.jsonl", **more)], env=env,
                              capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    evaluate.main(words(folder, data, tmp_path / "single-1.jsonl", limit=1))
    for a, b in ((results, tmp_path / "whole.jsonl"), (tmp_path / "single-1.jsonl", tmp_path / "single.jsonl")):
        for x, y in zip(lines(a), lines(b), strict=True):
            assert x["score"] == pytest.approx(y["score"], abs=2e-5)
            assert {k: v for k, v in x.items() if k not in ("score", "stderr")} == {k: v for k,
                v in y.items() if k not in ("score", "stderr")}


# ---------------------------------------------------------------------- what a result depends on

def copy_model(folder, to, **files):
    """A copy of a model folder with some JSON or text files changed."""
    shutil.copytree(folder, to)
    for name, text in files.items():
        (to / name.replace("__", ".")).write_text(text if isinstance(text, str) else json.dumps(text))
    return to


CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}[assistant]"
GENERATE = [dict(TASKS[2], pairs=["en-kk"])]
CONVERSE = [dict(name="talk", kind="chat", path="c/{lang}.jsonl", max_new_tokens=3)]


@pytest.mark.parametrize("change, more", [
    (dict(chat_template__jinja=CHAT.replace("[", "<")), dict(apply_chat_template=True, tasks=TASKS[1:2])),
    (dict(generation_config__json={"eos_token_id": [3, 77]}), dict(tasks=GENERATE)),
    (dict(chat_template__jinja=CHAT.replace("[", "<")), dict(tasks=CONVERSE)),
    (dict(generation_config__json={"eos_token_id": 78}), dict(tasks=CONVERSE)),
], ids=["template", "ends", "template of a chat", "ends of a chat"])
def test_another_template_or_end_is_another_result(folder, data, tmp_path, change, more):
    """The same weights and prompts; and without the change nothing is measured again."""
    pytest.importorskip("sacrebleu")
    for lang in ("en", "kk"):
        write(tmp_path / f"data/c/{lang}.jsonl",
              jsonl({"q": "a", "a": "b", "b": "c", "label": 0, "prompt": "x"} for _ in range(2)))
        write(tmp_path / f"data/f/{lang}.txt", "one\ntwo\n")
    model, out = copy_model(folder, tmp_path / "m", chat_template__jinja=CHAT), tmp_path / "r.jsonl"
    line = words(model, tmp_path / "data", out, languages=["en"], checkpoint="m", **more)
    evaluate.main(line)
    n = len(lines(out))
    evaluate.main(line)
    assert len(lines(out)) == n
    for name, text in change.items():
        (model / name.replace("__", ".")).write_text(text if isinstance(text, str) else json.dumps(text))
    evaluate.main(line)
    assert len(lines(out)) == 2 * n and len({r["setup"] for r in lines(out)}) == 2
    assert len({r["weights"] for r in lines(out)}) == 1


def test_a_metric_that_can_be_computed_now_appears(folder, data, tmp_path, monkeypatch):
    """BLEU's tokenizer of the target language is installed later: not "was there already"."""
    sacrebleu = pytest.importorskip("sacrebleu.metrics")
    line, out, BLEU = words(folder, data, tmp_path / "r.jsonl", tasks=GENERATE), tmp_path / "r.jsonl", sacrebleu.BLEU

    def refuse(tokenize):
        raise RuntimeError(tokenize)

    monkeypatch.setattr(sacrebleu, "BLEU", refuse)
    evaluate.main(line)
    assert [r["metric"] for r in lines(out)] == ["chrf++"]
    monkeypatch.setattr(sacrebleu, "BLEU", BLEU)
    evaluate.main(line)
    assert [r["metric"] for r in lines(out)] == ["chrf++", "chrf++", "bleu"]


def test_the_config_of_the_model_counts(folder, data, tmp_path):
    model, out = copy_model(folder, tmp_path / "m"), tmp_path / "r.jsonl"
    line = words(model, data, out, tasks=TASKS[:1], languages=["en"])
    evaluate.main(line)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rope_theta": 100.0}))
    evaluate.main(line)
    assert len(lines(out)) == 2 and lines(out)[0]["score"] != lines(out)[1]["score"]


# ---------------------------------------------------------------------- ends, cuts, documents that cannot be scored

@pytest.mark.parametrize("stop", ["<|im_end|>", "<|im_start|>"])
def test_a_stop_string_that_is_a_control_token_ends_the_text(folder, t, tmp_path, monkeypatch, stop):
    """MGSM stops at <|im_end|>, which is not the EOS of a base model: its text is not in the response."""
    task = {"name": "x", "kind": "generate", "stop_strings": ["\n", stop, "</s>"]}
    c = settings(tmp_path, None, model=str(folder))
    assert t.added_tokens[stop] in runners.generation_stop_ids(c, task, t)
    assert runners.generation_stop_ids(c, task | {"stop_strings": ["\n"]}, t) == scoring.eos_ids(t, folder)
    seen = {}

    def stub(model, prompts, max_new_tokens, stop_ids, **more):
        seen["stop_ids"] = stop_ids
        return [[*t.encode(" 42"), *([] if t.added_tokens[stop] in stop_ids else t.encode(" and on"))] for _ in prompts]

    monkeypatch.setattr(runners, "generate", stub)
    task |= {"lang": "en", "max_new_tokens": 8, "metrics": ("number",)}
    documents = [{"context": "q", "prefix": [], "gold": ["42"]}]
    model = type("Model", (), {"config": ModelConfig(vocab_size=9)})
    c = settings(tmp_path, None, model=str(folder), batch_tokens=64)
    sample, = runners.run_generation(c, task, documents, model, t)
    assert (sample["response"], sample["exact_match"]) == (" 42", 1.0)


def test_cut_prompts_are_counted(folder, data, tmp_path, capsys):
    pytest.importorskip("sacrebleu")
    long = tmp_path / "data"
    for lang, n in (("en", 60), ("kk", 1)):
        texts = ["house " * (n if i else 1) for i in range(3)]
        write(long / f"c/{lang}.jsonl", jsonl({"q": text, "a": "x", "b": "y", "label": 0} for text in texts))
        write(long / f"f/{lang}.txt", "".join(text + "\n" for text in texts))
    evaluate.main(words(folder, long, tmp_path / "r.jsonl", tasks=[*TASKS[:2], GENERATE[0]], max_length=48))
    rows = {(r["task"], r["lang"]): r for r in lines(tmp_path / "r.jsonl")}
    cut = {key: r["cut"] for key, r in rows.items()}
    assert cut == {("f", "en"): 0, ("f", "kk"): 0, ("c", "en"): 2, ("c", "kk"): 0, ("tr", "en-kk"): 2}
    assert "c en: acc" in (out := capsys.readouterr().out) and "2 of 3 prompts cut" in out
    samples = lines(tmp_path / "samples.jsonl")
    assert [s["doc_id"] for s in samples if s["task"] == "c" and s.get("cut")] == [1, 2]
    size = len(tokenizer.load(folder).encode("house " * 60))
    assert [s["windows"] for s in samples if "windows" in s] == [math.ceil(size / 48)] * 2


def test_a_bad_document_does_not_end_the_run(folder, data, tmp_path, capsys):
    """An empty choice, one longer than the window, a task without a valid document: named, counted, the others run."""
    rows = [{"q": "house", "a": "x", "b": "y", "label": 0}, {"q": "house", "a": "", "b": "", "label": 0},
            {"q": "house", "a": "green " * 90, "b": "y", "label": 0}, {"q": "house", "a": "x", "b": "z", "label": 1}]
    write(tmp_path / "data/c/en.jsonl", jsonl(rows))
    write(tmp_path / "data/c/kk.jsonl", jsonl(rows[1:2]))
    write(tmp_path / "data/c/zh.jsonl", jsonl([rows[0] | {"label": 7}]))
    write(tmp_path / "data/f/en.txt", "one\n")
    task = dict(name="c", kind="choice", path="c/{lang}.jsonl", context="{q}", choices=["{a}", "{b}"],
                gold="label", delimiter="")
    line = words(folder, tmp_path / "data", tmp_path / "r.jsonl", languages=["kk", "zh", "en"], max_length=64,
                 tasks=[task, dict(TASKS[0], languages=["en"])])
    with pytest.raises(ValueError, match="2 of 4 tasks failed, the others are done; the first: task c, kk: no doc"):
        evaluate.main(line)
    found = {(r["task"], r["lang"], r["metric"]): r for r in lines(tmp_path / "r.jsonl")}
    assert set(found) == {("c", "en", "acc"), ("c", "en", "acc_norm"), ("f", "en", "bits_per_byte")}
    assert (found["c", "en", "acc"]["n"], found["c", "en", "acc"]["failed"]) == (2, 2)
    err = capsys.readouterr().err
    assert "not scored: task c, en, document 1: choices of [0, 0] tokens" in err and "document 2" in err
    assert "label=7 names none of the 2 choices" in err
    done = subprocess.run([sys.executable, str(ROOT / "eval.py"), *line], capture_output=True, text=True)
    assert done.returncode == 1 and "2 of 4 tasks failed" in done.stderr and "Traceback" not in done.stderr


def test_two_evals_in_one_folder_are_refused(folder, data, tmp_path):
    lock = results_.lock_results(tmp_path / "r.jsonl")
    with pytest.raises(ValueError, match="r.jsonl.lock is in use by another process; stop it or set out="):
        evaluate.main(words(folder, data, tmp_path / "r.jsonl", tasks=TASKS[:1]))
    lock.close()
    evaluate.main(words(folder, data, tmp_path / "r.jsonl", tasks=TASKS[:1]))


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def is_running(pid):
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_a_rank_does_not_outlive_its_parent(folder, data, tmp_path):
    """Rank 0 of two waits for rank 1 forever; its parent is killed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1",
           "MASTER_PORT": free_port()}
    launcher = ("import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(600)")
    line = words(folder, data, tmp_path / "r.jsonl", tasks=TASKS[:1])
    parent = subprocess.Popen([sys.executable, "-c", launcher, sys.executable, str(ROOT / "eval.py"), *line],
                              stdout=subprocess.PIPE, env=env, text=True)
    pid, port = int(parent.stdout.readline()), int(env["MASTER_PORT"])
    for _ in range(600):  # until it waits at its port
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    assert is_running(pid)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not is_running(pid):
            break
        time.sleep(0.1)
    assert not is_running(pid)


@pytest.mark.slow
def test_all_ranks_refuse_a_folder_in_use(folder, data, tmp_path):
    """Also those that torchrun does not watch end within seconds, with the reason."""
    lock = results_.lock_results(tmp_path / "r.jsonl")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
           "MASTER_PORT": free_port()}
    line = [sys.executable, str(ROOT / "eval.py"), *words(folder, data, tmp_path / "r.jsonl", tasks=TASKS[:1])]
    ranks = [subprocess.Popen(line, env=env | {"RANK": str(i)}, stderr=subprocess.PIPE, text=True) for i in range(2)]
    for rank in ranks:
        _, err = rank.communicate(timeout=300)
        assert rank.returncode == 1 and "r.jsonl.lock is in use by another process" in err
    lock.close()


def test_labels_from_a_file(folder, data, tmp_path):
    """A path relative to data=; a missing or wrong file is named."""
    labels = {k: {"ask": "Which?"} for k in ("en", "kk")}
    shutil.copytree(data, tmp_path / "data")
    write(tmp_path / "data/labels.json", json.dumps(labels))
    for name, value in (("a", labels), ("b", "labels.json")):
        evaluate.main(words(folder, tmp_path / "data", tmp_path / f"{name}.jsonl", tasks=TASKS[1:2], labels=value))
    assert lines(tmp_path / "a.jsonl") == lines(tmp_path / "b.jsonl")
    with pytest.raises(ValueError, match="labels: .*none.json is missing; correct labels="):
        evaluate.main(words(folder, data, tmp_path / "c.jsonl", tasks=TASKS[1:2], labels="none.json"))
    write(tmp_path / "data/labels.json", "[1]")
    with pytest.raises(ValueError, match="must hold"):
        evaluate.main(words(folder, tmp_path / "data", tmp_path / "c.jsonl", tasks=TASKS[1:2], labels="labels.json"))
