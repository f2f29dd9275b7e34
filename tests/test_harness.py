"""eval.py against lm-evaluation-harness: prompts, log-likelihoods, argmax and generated text of every document.

On a tiny random model. Where lm-eval is installed it runs beside ours (slow; with STORE=1 it also writes
tests/data/harness.json). The default tests compare with that file, what lm-eval 0.4.13 gave for the same model.
"""
import csv
import hashlib
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

import eval as evaluate
from hf.tokenizer_files import QWEN2_PATTERN
from model import ModelConfig, Qwen2

STORED = Path(__file__).parent / "data" / "harness.json"
WORDS = """river stone house the a of green walks reads Haus grün läuft maison verte rivière дом река зелёный
    房子 河流 绿色 读书 বাড়ি নদী บ้าน แม่น้ำ منزل نهر nyumba mto kijani 3.5 17 1,200 "quoted" it's café naïve""".split()
CHAT = ("{% for m in messages %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


# ---------------------------------------------------------------------- the same model and tokenizer on every machine

def byte_letters():
    """The printable letter that stands for each byte in a byte-level vocabulary."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(extra)) for b in range(256)]


def byte_bpe(text, merges):
    """A byte-level BPE learned by counting pairs of neighbours: (vocabulary, merges)."""
    letters = byte_letters()
    pieces = text.replace("\n", " \n ").replace(" ", " \0").split("\0")
    words = Counter(tuple(letters[b] for b in piece.encode()) for piece in pieces)
    vocab, made = list(letters), []
    for _ in range(merges):
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = max(pairs, key=lambda p: (pairs[p], p))
        made.append(list(best))
        vocab.append("".join(best))
        joined = Counter()
        for word, n in words.items():
            out = []
            for x in word:
                out = [*out[:-1], out[-1] + x] if out and (out[-1], x) == best else [*out, x]
            joined[tuple(out)] += n
        words = joined
    return {token: i for i, token in enumerate(vocab)}, made


def write_model(folder, bos):
    """A tiny random model with a trained byte-level BPE; bos: whether texts begin with a BOS."""
    joined = " ".join(a + b for a in WORDS for b in WORDS[:4])
    vocab, merges = byte_bpe(" ".join(WORDS) + " Question: Answer: A. B. C. D.\n" + joined, 160)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": len(vocab) + i, "content": s} | flags for i, s in enumerate(special)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated", "invert": False}
    whole = {"version": "1.0", "added_tokens": added, "normalizer": {"type": "NFC"}, "decoder": level,
             "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "post_processor": None,
             "model": {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": None, "dropout": None,
                       "fuse_unk": False, "byte_fallback": False, "continuing_subword_prefix": "",
                       "end_of_word_suffix": ""}}
    if bos:
        def template(*ids):
            sequences = [{"Sequence": {"id": x, "type_id": 0}} for x in ids]
            return [{"SpecialToken": {"id": "<s>", "type_id": 0}}, *sequences]

        whole["post_processor"] = {"type": "TemplateProcessing", "single": template("A"), "pair": template("A", "B"),
                                   "special_tokens":
                                   {"<s>": {"id": "<s>", "ids": [len(vocab) + 3], "tokens": ["<s>"]}}}
    config = ModelConfig(vocab_size=len(vocab) + 4, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4,
                         num_key_value_heads=2, initializer_range=0.25, max_position_embeddings=2048)
    Qwen2(config).init_weights(5).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
         "chat_template": CHAT,
         "clean_up_tokenization_spaces": False, **({"bos_token": "<s>"} if bos else {})}), encoding="utf-8")
    # without it transformers runs on behind the EOS, and what the harness returns depends on the rows beside
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": len(vocab)}))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("harness")
    return {name: write_model(base / name, name == "bos") for name in ("plain", "bos")}


# ---------------------------------------------------------------------- invented rows in the published shapes

def benchmark_files(base):
    """Files of sixteen benchmarks; rows vary in length, some end in blanks, some share their beginnings."""
    rng = random.Random(7)

    def say(a, b):
        return " ".join(rng.choices(WORDS, k=rng.randint(a, b)))

    def lettered(q, keys, gold):
        return {q: say(4, 12) + rng.choice(["", " ", "?\n"]), **{k: say(1, 4) for k in keys}, **gold}

    def lines(path, found):
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in found), encoding="utf-8")

    def cells(path, found, cut=","):
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        with open(base / path, "w", newline="", encoding="utf-8") as f:
            out = csv.DictWriter(f, list(found[0]), delimiter=cut)
            out.writeheader()
            out.writerows(found)

    def letter():
        return rng.choice("ABCD")

    for split in ("val", "test"):
        lines(f"xcopa/{split}.sw.jsonl", [dict(premise=say(3, 6) + rng.choice([".", ". ", "。"]),
                                               choice1=say(2, 5).capitalize(), choice2=say(
            2, 5).capitalize(), question=rng.choice(["cause", "effect"]), label=rng.randrange(2), idx=i,
                                               changed=False) for i in range(9)])
    passages = [say(20, 30) for _ in range(4)]
    lines("belebele/fra_Latn.jsonl", [dict(flores_passage=passages[i // 2],
                                           **lettered("question", [f"mc_answer{k}" for k in "1234"], dict(
        correct_answer_num=str(rng.randint(1, 4))))) for i in range(8)])
    for split, n in (("dev", 5), ("test", 7)):
        cells(f"cmmlu/{split}/agronomy.csv",
              [{"": i, **lettered("Question", "ABCD", dict(Answer=letter()))} for i in range(n)])
        lines(f"mmlu/virology/{split}.jsonl", [dict(question=say(4, 12), subject="virology",
                                                    choices=[say(1, 3) for _ in range(4)],
                                                    answer=rng.randrange(4)) for _ in range(n)])
        lines(f"global_mmlu/ny/{split}.jsonl",
              [dict(subject=rng.choice(["virology", "anatomy"]), answer=letter(),
                    **lettered("question", [f"option_{k}" for k in "abcd"], {})) for _ in range(3 * n)])
    cells("mmmlu/mmlu_BN-BD.csv", [{"": i, **lettered("Question", "ABCD", dict(Answer=letter(), Subject=rng.choice(
        ["virology", "anatomy"])))} for i in range(14)])
    for split, n in (("train", 6), ("val", 5), ("test", 6)):
        lines(f"m_mmlu/uk/{split}.jsonl", [lettered("instruction", [f"option_{k}" for k in "abcd"],
                                                    dict(answer=letter())) for _ in range(n)])
        lines(f"arc/ARC-Challenge/{split}.jsonl", [dict(id=str(i), question=say(5, 9),
                                                        choices=dict(text=[say(1, 4) for _ in range(3 + i % 3)],
                                                                     label=["ABCDE", "12345"][i % 2][:3 + i % 3]),
                                                        answerKey=["ABCDE", "12345"][i % 2][i % 3])
                                                   for i in range(n)])
        lines(f"paws-x/de/{split}.jsonl", [dict(id=i, sentence1=say(3, 6) + " n't ( x ) .",
                                                sentence2=say(3, 5).capitalize(), label=rng.randrange(2))
                                           for i in range(n)])
        lines(f"xnli/th/{split}.jsonl", [dict(premise=say(3, 6), hypothesis=say(2, 4),
                                              label=rng.randrange(3)) for _ in range(n)])
        lines(f"hellaswag/hellaswag_{split}.jsonl", [dict(activity_label=say(1, 2),
                                                          ctx_a=say(3, 6) + " [header] x [title] y  z", ctx_b=say(
            1, 3), endings=[say(2, 5) + " [step]" for _ in range(4)], label=str(rng.randrange(4))) for _ in range(n)])
        lines(f"mgsm/zh/{split}.jsonl", [dict(question=("问题： " if split == "train" else "") + say(6, 12),
                                              answer=say(3, 5) if split == "train"
                                              else None, answer_number=rng.randint(1, 99),
                                              equation_solution=None) for _ in range(n)])
        lines(f"tydiqa-goldp/{split}.jsonl", [dict(id=f"{rng.choice(['swahili', 'bengali'])}-{i}", title="t",
                                                   context=say(8, 20), question=say(
            3, 6), answers=dict(text=[say(1, 2)], answer_start=[0])) for i in range(4 * n)])
    lines("xstorycloze/ru/train.jsonl", story := [dict(story_id=str(i),
                                                       **{f"input_sentence_{k}": say(3, 5) for k in range(1, 5)},
                                                       sentence_quiz1=say(
        2, 4), sentence_quiz2=say(2, 4), answer_right_ending=rng.randint(1, 2)) for i in range(9)])
    lines("xstorycloze/ru/eval.jsonl", story[4:] + story[:1])
    lines("xwinograd/pt/test.jsonl", [dict(sentence=f"{say(2, 4)} _ {say(2, 3)} ", option1=say(1, 1), option2=say(1, 2),
                                           answer=str(
        rng.randint(1, 2))) for _ in range(7)])
    lines("include/Kazakh/test.jsonl", [lettered("question", [f"option_{k}" for k in "abcd"],
                                                 dict(answer=rng.randrange(4), domain="Arts & Humanities"))
                                        for _ in range(6)])
    return base


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return benchmark_files(tmp_path_factory.mktemp("data"))


# our task: (the harness's file, {its split: our file})
TASKS = {
    "xcopa_sw": ("xcopa/default_sw.yaml", dict(validation="xcopa/val.sw.jsonl", test="xcopa/test.sw.jsonl")),
    "belebele_fra_Latn": ("belebele/belebele_fra_Latn.yaml", dict(test="belebele/fra_Latn.jsonl")),
    "cmmlu_agronomy": ("cmmlu/cmmlu_agronomy.yaml", dict(dev="cmmlu/dev/agronomy.csv", test="cmmlu/test/agronomy.csv")),
    "mmlu_virology": ("mmlu/default/mmlu_virology.yaml",
                      dict(dev="mmlu/virology/dev.jsonl", test="mmlu/virology/test.jsonl")),
    "mmmlu_bn_bd_virology": ("openai-mmmlu/default/mmmlu_bn_bd_virology.yaml", dict(test="mmmlu/mmlu_BN-BD.csv")),
    "m_mmlu_uk": ("okapi/mmlu_multilingual/m_mmlu_uk.yaml", {s: f"m_mmlu/uk/{s}.jsonl" for s in ("train", "test")}),
    "global_mmlu_full_ny_virology": ("global_mmlu/full/ny/global_mmlu_full_ny_virology.yaml",
                                     {s: f"global_mmlu/ny/{s}.jsonl" for s in ("dev", "test")}),
    "include_base_44_kazakh_arts_humanities": ("include/default/Kazakh/include_base_44_kazakh_arts_humanities.yaml",
                                               dict(test="include/Kazakh/test.jsonl")),
    "arc_challenge": ("arc/arc_challenge.yaml", {s: f"arc/ARC-Challenge/{f}.jsonl" for s, f in
                                                 dict(train="train", validation="val", test="test").items()}),
    "hellaswag": ("hellaswag/hellaswag.yaml", dict(train="hellaswag/hellaswag_train.jsonl",
                                                   validation="hellaswag/hellaswag_val.jsonl")),
    "xstorycloze_ru": ("xstorycloze/default_ru.yaml", dict(train="xstorycloze/ru/train.jsonl",
                                                           eval="xstorycloze/ru/eval.jsonl")),
    "xnli_th": ("xnli/xnli_th.yaml", dict(train="xnli/th/train.jsonl", validation="xnli/th/val.jsonl")),
    "paws_de": ("paws-x/paws_de.yaml", {s: f"paws-x/de/{f}.jsonl" for s,
                                        f in dict(train="train", validation="val", test="test").items()}),
    "xwinograd_pt": ("xwinograd/xwinograd_pt.yaml", dict(test="xwinograd/pt/test.jsonl")),
    "mgsm_direct_zh": ("mgsm/direct/mgsm_direct_zh.yaml", {s: f"mgsm/zh/{s}.jsonl" for s in ("train", "test")}),
    "tydiqa_goldp_sw": ("tydiqa/tydiqa_goldp_sw.yaml", dict(train="tydiqa-goldp/train.jsonl",
                                                            validation="tydiqa-goldp/val.jsonl")),
}
FIRST = [name for name in TASKS if "wino" not in name and "include" not in name]  # no few-shot example is measured
# (model, tasks, settings): what is measured
CASES = {
    "zero": ("plain", list(TASKS), dict(shots=0)),
    "shots": ("plain", FIRST, dict(shots=2)),
    "bos": ("bos", list(TASKS), dict(shots=0)),
    "chat": ("plain", FIRST, dict(shots=1, apply_chat_template=True)),
    "bos-chat": ("bos", FIRST[:9], dict(shots=1, apply_chat_template=True)),
    "cut": ("plain", [n for n in FIRST if n.split("_")[0] not in ("mgsm", "tydiqa", "paws", "xnli")],
            dict(shots=2, max_length=48)),
}


def ours(folder, data, out, names, **settings):
    words = [str(folder), f"data={data}", f"tasks={','.join(names)}", "preset=lm-eval", f"out={out}", "threads=1"]
    evaluate.main([*words, *(f"{k}={v}" for k, v in settings.items())])
    return {name: [row for row in map(json.loads, open(out / "samples.jsonl",
                                                       encoding="utf-8")) if row["task"] == name] for name in names}


def theirs(folder, data, work, names, shots, apply_chat_template=False, max_length=None):
    """lm-eval's samples of local files: {task: [{"pairs": ...} or {"context", "response"}, with its metrics]}."""
    import lm_eval
    import lm_eval.tasks
    import yaml
    from lm_eval.models.huggingface import HFLM
    tasks = Path(lm_eval.tasks.__file__).parent
    for name in names:
        source, files = TASKS[name]
        kind = "csv" if ".csv" in str(files) else "json"
        (work / f"{name}.yaml").write_text(yaml.safe_dump(
            {"include": str(tasks / source), "task": f"{name}_local", "tag": None, "dataset_path": kind,
             "dataset_name": None,
             "dataset_kwargs": {"data_files": {split: str(data / file) for split, file in files.items()}}},
            sort_keys=False))
    lm = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=4, max_length=max_length)
    found = lm_eval.simple_evaluate(lm, tasks=[f"{name}_local" for name in names], num_fewshot=shots, bootstrap_iters=0,
                                    apply_chat_template=apply_chat_template, fewshot_as_multiturn=apply_chat_template,
                                    task_manager=lm_eval.tasks.TaskManager(include_path=str(work)))["samples"]
    out = {}
    for name in names:
        rows = [s for s in found[f"{name}_local"] if s["filter"] != "remove_whitespace"]
        rows.sort(key=lambda s: s["doc_id"])
        out[name] = []
        for s in rows:
            asked = s["arguments"]
            if isinstance(asked, dict):
                asked = [asked[k] for k in sorted(asked)]
            asked = [[a["arg_0"], a["arg_1"]] if isinstance(a, dict) else list(a) for a in asked]
            right = {k: float(s[k]) for k in ("acc", "acc_norm", "exact_match", "f1") if k in s}
            if isinstance(asked[0][1], str):
                resps = [r[0] if isinstance(r[0], (list, tuple)) else r for r in s["resps"]]
                out[name].append({"pairs": [[a, b, float(x), str(y) == "True"] for (a, b), (x, y) in zip(asked, resps)],
                                  **right})
            else:
                out[name].append({"context": asked[0][0], "response": s["resps"][0][0], **right})
    return out


def short(text):
    """What stands for a prompt in the stored file."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def compare(mine, other, key=short):
    """Every document of every task; returns how many pairs and texts were compared. key: how `other` names a prompt."""
    n = 0
    assert set(mine) == set(other)
    for name in mine:
        assert len(mine[name]) == len(other[name]), name
        for a, b in zip(mine[name], other[name]):
            if "pairs" in b:
                assert [[key(p["context"]), p["continuation"]] for p in a["pairs"]] == [p[:2] for p in b["pairs"]], name
                for p, (_, _, score, greedy) in zip(a["pairs"], b["pairs"]):
                    assert abs(p["loglikelihood"] - score) < 1e-3 and p["is_greedy"] == greedy, (name, p, score, greedy)
                n += len(b["pairs"])
            else:
                assert key(a["context"]) == b["context"], name
                if a["response"] != b["response"]:
                    # a stop string that is a control token ends our text there; the harness stops generating at it only
                    # when all rows of the batch are done, and drops the token from the text, so its text runs on
                    assert name.startswith("mgsm") and b["response"].startswith(a["response"].rstrip("\ufffd")), name
                n += 1
            for metric in ("acc", "acc_norm", "exact_match", "f1"):
                if metric in b:
                    value = a.get(metric, a.get("em") if metric == "exact_match" else None)
                    assert value == pytest.approx(b[metric]), (name, a, b)
    return n


def shortened(found):
    def shorten(doc):
        if "pairs" in doc:
            return doc | {"pairs": [[short(a), b, round(x, 5), y] for a, b, x, y in doc["pairs"]]}
        return doc | {"context": short(doc["context"])}

    return {name: [shorten(doc) for doc in docs] for name, docs in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_every_document_as_stored(case, folders, data, tmp_path, capsys):
    model, tasks, settings = CASES[case]
    stored = json.loads(STORED.read_text(encoding="utf-8"))[case]
    n = compare(ours(folders[model], data, tmp_path, tasks, **settings), stored)
    assert n == sum(len(doc.get("pairs", [0])) for docs in stored.values() for doc in docs) > 100


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_document_beside_lm_eval(case, folders, data, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    model, tasks, settings = CASES[case]
    (tmp_path / "work").mkdir()
    other = theirs(folders[model], data, tmp_path / "work", tasks, **settings)
    if os.environ.get("STORE"):
        stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
        STORED.parent.mkdir(exist_ok=True)
        STORED.write_text(json.dumps(stored | {case: shortened(other)}, ensure_ascii=False), encoding="utf-8")
    compare(ours(folders[model], data, tmp_path / "out", tasks, **settings), other, key=str)


# ---------------------------------------------------------------------- a published model on published rows

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "benchmarks"
PUBLISHED = {  # task: (the harness's file, {its split: a file in SHARED and here})
    "belebele_eng_Latn": ("belebele/belebele_eng_Latn.yaml", dict(test="belebele/eng_Latn.jsonl")),
    "belebele_kaz_Cyrl": ("belebele/belebele_kaz_Cyrl.yaml", dict(test="belebele/kaz_Cyrl.jsonl")),
    "xcopa_it": ("xcopa/default_it.yaml", dict(validation="xcopa/val.it.jsonl", test="xcopa/test.it.jsonl")),
    "hellaswag": ("hellaswag/hellaswag.yaml", dict(train="hellaswag/hellaswag_train.jsonl",
                                                   validation="hellaswag/hellaswag_val.jsonl")),
}


def published_rows(base, limit):
    """The first rows of SHARED's files; and in HellaSwag's shape, the halves of English news sentences: a model that
    can read tells which second half belongs to a first, so that a fault in scoring would show in the accuracy.
    """
    for _, files in PUBLISHED.values():
        for file in files.values():
            (base / file).parent.mkdir(parents=True, exist_ok=True)
            if (SHARED / file).exists():
                rows = (SHARED / file).read_text(encoding="utf-8").splitlines()[:limit]
                (base / file).write_text("\n".join(rows) + "\n", encoding="utf-8")
    news, = (SHARED / "ntrex128").glob("*eng*.txt")
    sentences = [words for line in news.read_text(encoding="utf-8").splitlines() if len(words := line.split()) >= 12]
    rng = random.Random(0)
    for split, chosen in (("train", sentences[-limit:]), ("val", sentences[:limit])):
        rows = []
        for i, words in enumerate(chosen):
            others = rng.sample([s for s in chosen if s is not words], 3)
            gold = rng.randrange(4)
            endings = [" ".join(s[len(s) // 2:]) for s in others]
            endings.insert(gold, " ".join(words[len(words) // 2:]))
            half = " ".join(words[:len(words) // 2])
            rows.append({"ind": i, "activity_label": "News", "ctx_a": half, "ctx_b": "", "ctx": half,
                         "endings": endings, "label": str(gold), "source_id": str(i), "split": split,
                         "split_type": "indomain"})
        (base / f"hellaswag/hellaswag_{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("HARNESS_MODEL") or not SHARED.exists(),
                    reason="set HARNESS_MODEL to a folder; needs ../shared/benchmarks")
@pytest.mark.parametrize("shots", [0, 2])
def test_a_published_model_beside_lm_eval(shots, tmp_path, monkeypatch):
    """HARNESS_MODEL=models/SmolLM2-135M [HARNESS_LIMIT=40] pytest -m slow -s tests/test_harness.py -k published"""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setitem(globals(), "TASKS", PUBLISHED)
    published_rows(tmp_path / "data", int(os.environ.get("HARNESS_LIMIT", 40)))
    (tmp_path / "work").mkdir()
    tasks, model = [name for name in PUBLISHED if not shots or name != "belebele_kaz_Cyrl"], os.environ["HARNESS_MODEL"]
    other = theirs(model, tmp_path / "data", tmp_path / "work", tasks, shots)
    mine = ours(model, tmp_path / "data", tmp_path / "out", tasks, shots=shots)
    n = compare(mine, other, key=str)
    farthest = max(abs(p["loglikelihood"] - q[2]) for name in tasks for a, b in zip(mine[name], other[name])
                   for p, q in zip(a["pairs"], b["pairs"]))
    accuracy = {name: round(sum(doc["acc"] for doc in docs) / len(docs), 3) for name, docs in mine.items()}
    print(f"\n{n} pairs, largest difference of log-likelihoods {farthest:.1e}; accuracy {accuracy}")
    right = [doc["acc_norm"] for doc in mine["hellaswag"]]
    assert sum(right) / len(right) > 0.25 + 2 * (0.25 * 0.75 / len(right)) ** 0.5  # above chance: it reads
