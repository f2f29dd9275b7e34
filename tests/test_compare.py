"""evaluation/compare.py: statistics against closed forms and simulations; samples that do not match are refused."""
import itertools
import json
import math
from functools import partial

import numpy as np
import pytest

from evaluation import compare, results, samples, statistics
from evaluation import translation as translation_

# ---------------------------------------------------------------------- statistics


@pytest.mark.parametrize("right, n, low, high", [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0),
                                                 (81, 263, 0.2553, 0.3662)])  # the last: Newcombe 1998, table I
def test_wilson(right, n, low, high):
    assert statistics.wilson(right, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_solves_its_equation():
    """Its ends are the shares p that stand z standard errors from what was seen: |x - p| = z sqrt(p (1 - p) / n)."""
    for p in statistics.wilson(30, 200, 0.9):
        assert abs(30 / 200 - p) == pytest.approx(1.644854 * math.sqrt(p * (1 - p) / 200), rel=1e-5)


@pytest.mark.parametrize("wins, losses, n", [(0, 0, 20), (6, 1, 10), (0, 5, 12), (12, 2, 50), (10, 0, 10), (0, 10, 10),
                                             (3, 3, 40), (400, 350, 2000)])
def test_tango_solves_its_equation(wins, losses, n):
    """At its ends the likeliest trinomial with that difference is z standard errors from what was seen."""
    for delta, sign in zip(statistics.tango(wins, losses, n), (1, -1)):
        if abs(delta) > 1 - 1e-6:
            continue  # nothing beyond
        q = np.linspace(max(0.0, -delta), (1 - delta) / 2, 400_001)[1:-1]  # P(loss); P(win) = q + delta
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = wins * np.log(q + delta) + losses * np.log(q) + (n - wins - losses) * np.log(1 - 2 * q - delta)
        best = q[np.nanargmax(likelihood)]
        z = (wins - losses - n * delta) / math.sqrt(n * (2 * best + delta - delta ** 2))
        assert z == pytest.approx(sign * 1.959964, abs=0.01)


def test_tango_by_hand_and_by_symmetry():
    z2 = 1.959964 ** 2
    assert statistics.tango(0, 0, 20) == pytest.approx((-z2 / (20 + z2), z2 / (20 + z2)), abs=1e-6)
    low, high = statistics.tango(6, 1, 10)
    assert statistics.tango(1, 6, 10) == pytest.approx((-high, -low)) and low < 0.5 < high
    assert statistics.tango(6, 1, 10, 0.5)[0] > low


def test_tango_covers_the_truth():
    """Of samples of 40 pairs with 10 % discordant ones, whose bootstrap intervals are empty too often."""
    rng, held, empty, n = np.random.default_rng(3), 0, 0, 40
    for wins, losses, _ in rng.multinomial(n, [0.03, 0.03, 0.94], 2000):
        low, high = statistics.tango(wins, losses, n)
        held += low <= 0 <= high
        empty += low == high
    assert held / 2000 > 0.93 and empty == 0


@pytest.mark.parametrize("up, down", list(itertools.product(range(7), range(7))))
def test_sign_test_counts_all_outcomes(up, down):
    """Of all 2^n ways for fair coins to fall, the share at least as uneven; 1 where all are."""
    n = up + down
    uneven = [w for w in itertools.product((0, 1), repeat=n) if max(sum(w), n - sum(w)) >= max(up, down)]
    assert statistics.sign_test(up, down) == pytest.approx(len(uneven) / 2 ** n)


def test_sign_test_of_thousands():
    def normal(up, down):
        return math.erfc((abs(up - down) - 1) / math.sqrt(up + down) / math.sqrt(2))

    assert statistics.sign_test(3600, 3400) == pytest.approx(normal(3600, 3400), rel=0.01)
    assert statistics.sign_test(0, 5000) == 0.0 and statistics.sign_test(5000, 0) == 0.0  # 2^-4999


def test_holm():
    assert statistics.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []


def values(x):
    return np.asarray(x, float)[:, None], partial(samples.mean_score, len(x))


def test_bootstrap_of_a_mean():
    x = np.random.default_rng(0).normal(3, 2, 400)
    drawn, = statistics.bootstrap([values(x)], 4000, 1)
    assert drawn.shape == (4000,) and abs(drawn.mean() - x.mean()) < 0.01
    assert drawn.std() == pytest.approx(x.std() / 20, rel=0.05)
    again, other = (statistics.bootstrap([values(x)], 4000, seed)[0] for seed in (1, 2))
    assert (drawn == again).all() and (drawn != other).any()


def test_bootstrap_is_paired():
    """Two models that differ by the same in every document differ by that in every draw, whatever the documents."""
    x = np.random.default_rng(0).normal(0, 5, 100)
    a, b = statistics.bootstrap([values(x), values(x + 0.25)], 300, 0)
    assert np.allclose(b - a, 0.25) and a.std() > 0.3


def test_intervals_cover_the_truth():
    """95 % intervals of a mean hold it in about 95 of 100 samples."""
    rng, held = np.random.default_rng(5), 0
    for i in range(300):
        drawn, = statistics.bootstrap([values(rng.exponential(1.0, 80))], 300, i)
        low, high = np.quantile(drawn, [0.025, 0.975])
        held += low <= 1.0 <= high
    assert 0.89 <= held / 300 <= 0.985


def test_chance():
    assert statistics.bootstrap_p(np.linspace(-1, 3, 999)) == pytest.approx(2 * 251 / 1000)
    assert statistics.bootstrap_p(np.full(999, 0.5)) == pytest.approx(2 / 1000)
    assert statistics.bootstrap_p(np.zeros(99)) == 1.0


# ---------------------------------------------------------------------- samples

def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def choice(checkpoint, lang, right, task="belebele", prompt="Q{}"):
    return [{"checkpoint": checkpoint, "weights": f"w-{checkpoint}", "task": f"{task}_{lang}", "lang": lang,
             "doc_id": i,
             "pairs": [{"context": prompt.format(i), "continuation": f" {x}", "loglikelihood": -1.5, "is_greedy": False}
                       for x in "AB"],
             "acc": float(x), "acc_norm": float(x)} for i, x in enumerate(right)]


def run(capsys, *words):
    """{(benchmark and metric, task, language): the other cells} as printed, and the whole text."""
    compare.main([str(word) for word in words])
    out, found, head = capsys.readouterr().out, {}, None
    for line in out.splitlines():
        cells = [x for x in line.split("  ") if x]
        if "language" in line and "Holm" in line:
            head = cells[0].strip()
        elif head and len(cells) > 7:
            found[head, cells[0].strip(), cells[1].strip()] = [x.strip() for x in cells[2:]]
    return found, out


def test_right_and_wrong_by_hand(tmp_path, capsys):
    # kk: 10 documents, a right in 0-2, b in 1-8: only b in 3-8 (6), only a in 0 (1): p = 2 (1 + 7) / 2^7 = 0.125
    a = write(tmp_path / "a.jsonl", choice("base", "kk", [1] * 3 + [0] * 7) + choice("base", "ar", [1] * 10))
    b = write(tmp_path / "b.jsonl", choice("mine", "kk", [0] + [1] * 8 + [0]) + choice("mine", "ar", [1] * 10))
    found, out = run(capsys, a, b)
    low, high = (100 * x for x in statistics.wilson(8, 10))
    n, first, second, difference, p, holm, test = found["belebele acc", "belebele_kk", "kk"]
    assert (n, p, holm, test) == ("10", "0.1250", "0.2500", "McNemar") and first.startswith("30.0 [")
    assert second == f"80.0 [{low:.1f}, {high:.1f}]" and difference.startswith("+50.0 [")
    assert found["belebele acc", "belebele_ar", "ar"][3:] == ["+0.0 [-27.8, +27.8]", "1.0000", "1.0000", "McNemar"]
    mean = found["belebele acc", "mean", "all (2)"]
    assert mean[0] == "20" and mean[1].startswith("65.0 [") and mean[2].startswith("90.0 [") and mean[6] == "bootstrap"
    assert "difference: mine minus base; brackets: 95% intervals" in out
    assert ("belebele acc_norm", "mean", "all (2)") in found
    assert run(capsys, a, b) == (found, out)  # the same numbers again
    assert run(capsys, a, b, "seed=1")[1] != out


def test_rows_are_written(tmp_path, capsys):
    a = write(tmp_path / "a.jsonl", choice("x", "en", [1, 0]))
    b = write(tmp_path / "b.jsonl", choice("y", "en", [1, 1]))
    run(capsys, a, b, f"out={tmp_path}/d.jsonl")
    row = json.loads((tmp_path / "d.jsonl").read_text().splitlines()[0])
    values = [row[k] for k in ("benchmark", "metric", "a", "b", "difference", "n")]
    assert values == ["belebele", "acc", 0.5, 1.0, 0.5, 2]
    assert row["low"] <= row["difference"] <= row["high"] and row["low_a"] < row["a"] < row["high_a"]


def test_languages_of_one_test_share_their_documents(tmp_path, capsys):
    """Four languages with the same right documents tell no more than one; four independent ones tell twice as much."""
    rng, width = np.random.default_rng(3), {}
    gains = rng.random(400) < 0.3
    for name, of in (("same", lambda lang: gains), ("apart", lambda lang: rng.permutation(gains))):
        some = {lang: of(lang) for lang in ("de", "fr", "es", "pt")}
        a = write(tmp_path / "a.jsonl", [row for lang in some for row in choice("a", lang, [0] * 400)])
        b = write(tmp_path / "b.jsonl", [row for lang in some for row in choice("b", lang, some[lang])])
        rows, *_ = compare.compare(compare.Compare(str(a), str(b)))
        one = rows[0]
        all_ = next(row for row in rows if row["lang"] == "other high-resource (4)" and row["metric"] == "acc")
        width[name] = (all_["high"] - all_["low"]) / (one["high"] - one["low"])
    assert width["same"] == pytest.approx(1, abs=0.01) and width["apart"] == pytest.approx(0.5, abs=0.08)


def test_groups(tmp_path):
    langs = ["en", "zh", "ar", "de", "kk", "ne", "sw"]
    a = write(tmp_path / "a.jsonl", [row for x in langs for row in choice("a", x, [0, 1, 0])])
    b = write(tmp_path / "b.jsonl", [row for x in langs for row in choice("b", x, [1, 1, x == "kk"])])
    rows = compare.compare(compare.Compare(str(a), str(b)))[0]
    means = {row["lang"]: row["difference"] for row in rows if row["task"] == "mean" and row["metric"] == "acc"}
    subjects = [row | {"task": f"mmlu_{x}", "lang": "en"} for x in ("law", "art") for row in choice("a", "en", [0, 1])]
    one = str(write(tmp_path / "c.jsonl", subjects))
    rows = compare.compare(compare.Compare(one, one))[0]
    groups = [row["lang"] for row in rows if row["task"] == "mean"]
    assert groups == 2 * ["English (2)"]  # acc, acc_norm; "all" would be the same
    assert means == pytest.approx({"other high-resource (2)": 1 / 3, "low-resource (2)": 0.5, "all (7)": (6 + 2) / 21})
    pairs = {"en-kk": "from English", "kaz_Cyrl-eng_Latn": "into English", "ar-ja": "any to any"}
    assert {x: results.groups_of(x)[0] for x in pairs} == pairs


def translation(checkpoint, lang, lines, reference):
    return [{"checkpoint": checkpoint, "weights": "w", "task": "flores", "lang": lang, "doc_id": i, "context": f"T {i}",
             "response": x, "gold": [y], "empty": float(not x), "looping": 0.0}
            for i, (x, y) in enumerate(zip(lines, reference))]


def test_a_bleu_below_1_is_no_share(tmp_path, capsys):
    a, b = (write(tmp_path / f"{k}.jsonl", translation(k, "en-de", [x] * 3, ["we know what we are"] * 3))
            for k, x in (("a", "u v w x y"), ("b", "u v w x we")))
    found, _ = run(capsys, a, b)
    shown = [float(found["flores bleu", "flores", "en-de"][k].split()[0]) for k in (1, 2)]
    rows = {row["metric"]: row for row in compare.compare(compare.Compare(str(a), str(b)))[0]}
    assert shown == pytest.approx([rows["bleu"][k] for k in "ab"], abs=0.05)
    assert found["flores bleu", "flores", "en-de"][1].startswith("0.0 [0.0, 0.0]")


@pytest.mark.parametrize("lang, tok", [("en-de", "13a"), ("en-zh", "zh"), ("en-ko", "13a"), ("en-ja", "char"),
                                       *((f"en-{code}", "char")
                                         for code in ("th", "lo", "km", "my", "tha_Thai", "mya_Mymr"))])
def test_corpus_scores_are_sacrebleus(tmp_path, lang, tok):
    from sacrebleu.metrics import BLEU, CHRF
    rng = np.random.default_rng(0)
    words = ["the", "cat,", "sat", "on", "mats.", "我们", "学习", "ไทย", "x1"]
    reference = [" ".join(rng.choice(words, 12)) for _ in range(40)]

    def worse(share):
        return [" ".join(w if rng.random() > share else str(rng.choice(words)) for w in line.split())
                for line in reference]

    one, two = worse(0.6), worse(0.3)
    one[3] = ""
    a, b = (write(tmp_path / f"{k}.jsonl", translation(k, lang, x, reference)) for k, x in (("a", one), ("b", two)))
    rows = {row["metric"]: row for row in compare.compare(compare.Compare(str(a), str(b), resamples=200))[0]}
    for name, metric in (("chrf++", CHRF(word_order=2)), ("bleu", BLEU(tokenize=tok))):
        row = rows[name]
        assert (row["a"], row["b"]) == pytest.approx([metric.corpus_score(x, [reference]).score for x in (one, two)])
        assert 0 < row["low"] < row["difference"] < row["high"] and row["test"] == "bootstrap" and row["p"] < 0.02


def test_bits_per_byte_are_of_all_bytes(tmp_path):
    def of(k, scale):
        return [{"checkpoint": k, "weights": "w", "task": "heldout", "lang": "kk", "doc_id": i, "bits": scale * n,
                 "bytes": n} for i, n in enumerate((10, 400, 70, 20))]

    paths = [str(write(tmp_path / f"{k}.jsonl", of(k, x))) for k, x in (("a", 3), ("b", 2))]
    rows = compare.compare(compare.Compare(*paths))[0]
    row, = rows
    assert (row["metric"], row["a"], row["b"], row["low"], row["high"]) == ("bits_per_byte", 3, 2, -1, -1)


def test_question_answering_is_no_translation(tmp_path):
    row = {"checkpoint": "a", "weights": "w", "task": "tydiqa_goldp_ko", "lang": "ko", "doc_id": 0, "context": "c",
           "response": "r", "gold": ["r", "s"], "f1": 1.0, "em": 1.0, "empty": 0.0, "looping": 0.0, "in_language": 0.0}
    assert set(samples.measurements([(row, row)], "ko")) == {"f1", "em", "in_language"}


def test_a_tokenizer_that_is_not_installed(tmp_path, monkeypatch, capsys):
    import sacrebleu.metrics

    def refuse(tokenize):
        raise RuntimeError(tokenize)

    monkeypatch.setattr(sacrebleu.metrics, "BLEU", refuse)
    row = translation("a", "en-ja", ["x"], ["x"])[0] | {"preset": "paper"}
    translation_.print_once.cache_clear()
    assert set(samples.measurements([(row, row)], "en-ja")) == {"chrf++"} and "sacrebleu[ja]" in capsys.readouterr().err


def test_every_translation_score_has_the_signature_of_eval(tmp_path, capsys):
    """The same tokenizer and signature as eval.py's, in the rows and under the table."""
    for lang in ("en-th", "en-ja", "en-ko", "en-de"):
        rows = translation("a", lang, ["ab c", "d"], ["ab c", "e"])
        expected = {name: signature for name, *_, signature in translation_.score_translations(
            ["ab c", "d"], ["ab c", "e"], lang[3:], custom=True)}
        path = write(tmp_path / "a.jsonl", rows)
        found = compare.compare(compare.Compare(str(path), str(path), resamples=100))[0]
        assert {row["metric"]: row["signature"] for row in found} == expected
        assert f"signature: {expected['bleu']}" in run(capsys, path, path)[1]


def test_conversations_are_compared_by_what_was_asked():
    def short(question, answer):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return samples.without_texts({"messages": messages})

    assert short("Why?", "x") == short("Why?", "y") != short("How?", "x")


def test_scores_between_0_and_1_use_the_bootstrap(tmp_path):
    rng = np.random.default_rng(1)
    def of(k, up):
        return [{"checkpoint": k, "weights": "w", "task": "tydiqa", "lang": "ko", "doc_id": i, "context": "c",
                 "response": "r", "f1": x + up} for i, x in enumerate(rng.random(50))]

    files = [str(write(tmp_path / f"{k}.jsonl", of(k, up))) for k, up in (("a", 0), ("b", 0.4))]
    row, = compare.compare(compare.Compare(*files))[0]
    assert row["test"] == "bootstrap" and row["p"] < 0.01 and row["metric"] == "f1" and row["low"] > 0.1


# ---------------------------------------------------------------------- what does not go together

def test_one_file_with_two_checkpoints(tmp_path, capsys):
    both = write(tmp_path / "s.jsonl", choice("base", "en", [0, 0, 1]) + choice("stage2", "en", [1, 1, 1]))
    assert run(capsys, both, both, "a_name=base", "b_name=stage2")[0]["belebele acc", "belebele_en", "en"][0] == "3"
    with pytest.raises(ValueError, match="has samples of base, stage2, wanted: one; name the checkpoint with a_name="):
        compare.main([str(both), str(both)])
    with pytest.raises(ValueError, match="wanted: stage3"):
        compare.main([str(both), str(both), "a_name=base", "b_name=stage3"])


def test_newest_weights_and_later_rows_count(tmp_path):
    old = [{**row, "weights": "old"} for row in choice("a", "en", [0, 0, 0, 0])]
    path = write(tmp_path / "a.jsonl", old + choice("a", "en", [0, 0]) + choice("a", "en", [0, 1]))
    found, name = samples.read_samples(path, None)
    assert name == "a" and [row["acc"] for row in found["belebele_en", "en"].values()] == [0.0, 1.0]
    shorter = [{**row, "prompt": "five shots"} for row in choice("a", "en", [1])]  # another prompt: no old document
    write(path, choice("a", "en", [0, 1]) + shorter)
    assert len(samples.read_samples(path, None)[0]["belebele_en", "en"]) == 1


def test_a_cut_line_is_left_out_and_a_bad_one_named(tmp_path):
    good = "".join(json.dumps(row) + "\n" for row in choice("a", "en", [0, 1]))
    path = tmp_path / "a.jsonl"
    path.write_text(good + '{"checkpoint": "a", "ta')
    assert len(samples.read_samples(path, None)[0]["belebele_en", "en"]) == 2
    path.write_text(good + '{"checkpoint": "a", "ta\n')
    with pytest.raises(ValueError, match=r"a.jsonl, line 3: not JSON"):
        samples.read_samples(path, None)
    path.write_bytes(good.encode() + b'{"checkpoint": "\xe3"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl, line 3: not JSON: 'utf-8' codec .*; remove the line"):
        samples.read_samples(path, None)
    path.write_text(good + '{"checkpoint": "a"}\n')
    with pytest.raises(ValueError, match=r"a.jsonl, line 3: lacks one of checkpoint, task, lang, doc_id"):
        samples.read_samples(path, None)


@pytest.mark.parametrize("a, b, said", [
    (choice("a", "en", [0, 1, 1]), choice("b", "en", [0, 1]),
     r"belebele_en, en: document 2 is in .*a.jsonl \(a\), .*\(1 such\)"),
    (choice("a", "en", [0, 1]), choice("b", "en", [0, 1, 1, 1]),
     r"document 2 is in .*b.jsonl \(b\), not in .*a.jsonl.*\(2"),
    (choice("a", "en", [0, 1]), choice("b", "en", [0, 1], prompt="R{}"), r"document 0 has another prompt .*\(2 of 2\)"),
    (choice("a", "en", [0, 1]), choice("b", "kk", [0, 1]),
     r"share no task .*belebele_en en \(1\), b has belebele_kk kk"),
])
def test_samples_of_different_measurements(tmp_path, a, b, said):
    with pytest.raises(ValueError, match=said):
        compare.main([str(write(tmp_path / "a.jsonl", a)), str(write(tmp_path / "b.jsonl", b))])


def test_what_only_one_has_is_named(tmp_path, capsys):
    a = write(tmp_path / "a.jsonl", choice("a", "en", [0, 1]) + choice("a", "kk", [0, 1]))
    b = write(tmp_path / "b.jsonl", choice("b", "en", [1, 1]) + choice("b", "en", [1, 1], "xcopa"))
    out = run(capsys, a, b)[1]
    assert "a only: belebele_kk kk (1)" in out and "b only: xcopa_en en (1)" in out
    with pytest.raises(ValueError, match="a.jsonl has samples of no such task, wanted: one; .* or correct tasks="):
        compare.main([str(a), str(b), "tasks=xcopa_*"])


def test_settings_are_checked():
    for words in (["resamples=10"], ["level=1.0"], []):
        with pytest.raises(ValueError):
            compare.main(["a.jsonl", "b.jsonl", *words])
