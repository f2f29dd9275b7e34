"""configs/bayling/ and recipes/bayling_data.py: 182 languages with their names, an instruction set exact in its
numbers."""
import json
import re
import runpy
import subprocess
import sys
import tracemalloc
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

import configs
from configs import language_table
from recipes import bayling_data as recipe
from recipes.bayling_languages import NAMES, PIVOTS, PROMPTS, find_code
from tinyworld.grammar import load_language, render_sentence
from tinyworld.world import KEYS

ROOT = Path(__file__).parent.parent
ROWS = [{"question": {"en": f"Who {i}?", "kk": f"Кім {i}?", "zh": f"谁{i}？"},
         "answer": {"en": f"I {i}.", "kk": f"Мен {i}."}}
        for i in range(6)]
ROWS += [{"document": {"kk": "ұзын мәтін", "de": "langer Text"}, "summary": {"en": "long text", "zh": "长文"}},
         {"term": {"en": "inflation"}, "explanation": {"de": "Preise steigen", "zh": "物价上涨"}},
         {"text": {"en": "one", "de": "eins", "kk": "бір"}}]


@pytest.fixture
def raw(tmp_path):
    """Pairs in four shapes, aligned rows, and chats in English and Chinese."""
    (tmp_path / "bitext" / "kk-zh").mkdir(parents=True)
    (tmp_path / "aligned").mkdir()
    lines = {"bitext/en-kk.tsv": [f"sentence {i}\tсөйлем {i}" for i in range(40)] + ["same\tsame", "\tбос", "lone"],
             "bitext/kk-zh/part.jsonl": [json.dumps({"text": f"сөйлем {i}", "target": f"句子{i}"}) for i in range(10)],
             "bitext/eng_Latn-deu_Latn.eng_Latn": [f"phrase {i}" for i in range(20)],
             "bitext/eng_Latn-deu_Latn.deu_Latn": [f"Satz {i}" for i in range(20)],
             "bitext/bitext-de-fr.tsv": ["Satz\tphrase"],
             "aligned/all.jsonl": [json.dumps(row) for row in ROWS] + ["", "[1]", "{"],
             "en.jsonl": [json.dumps({"instruction": f"do {i}", "output": f"done {i}"}) for i in range(30)],
             "zh.jsonl": [json.dumps({"messages": [{"role": "user", "content": f"做{i}"}]}) for i in range(5)]}
    for name, some in lines.items():
        (tmp_path / name).write_text("\n".join(some) + "\n", encoding="utf-8")
    return tmp_path


def build(raw, out="out", **settings):
    given = {"instructions": {k: str(raw / f"{k}.jsonl") for k in PIVOTS}, "bitext": str(raw / "bitext/**"),
             "aligned": str(raw / "aligned/*")} | settings
    recipe.main([f"out={raw / out}", *(f"{k}={v!r}" if not isinstance(v, str) else f"{k}={v}"
                                       for k, v in given.items())])
    return raw / out


def read(folder):
    """{file: rows}."""
    return {str(p.relative_to(folder)): [json.loads(line) for line in p.read_text(encoding="utf-8").split("\n") if line]
            for p in sorted(folder.rglob("*.jsonl"))}


# ---------------------------------------------------------------------- names

def test_names():
    """Different in both languages, in their scripts, with well-formed FLORES codes; Marco-LLM's 29 as its paper names
    them."""
    assert len(NAMES) >= 120
    for i in range(3):
        assert len({row[i] for row in NAMES.values()}) == len(NAMES)
    for code, (english, chinese, flores) in NAMES.items():
        assert re.fullmatch("[a-z]{2,3}", code) and re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", flores)
        assert re.fullmatch(r"[A-Z][\w -]+", english) and re.fullmatch("[\u4e00-\u9fff-]+[语文]", chinese), code
        assert unicodedata.is_normalized("NFC", english + chinese)
    assert {code: NAMES[code][0] for code in language_table.NAMES} == language_table.NAMES


SCRIPTS = {"Latn": "LATIN", "Cyrl": "CYRILLIC", "Arab": "ARABIC", "Hans": "CJK", "Jpan": "HIRAGANA", "Hang": "HANGUL",
           "Beng": "BENGALI", "Deva": "DEVANAGARI", "Grek": "GREEK", "Hebr": "HEBREW", "Thai": "THAI"}


@pytest.mark.parametrize("code", language_table.NAMES)
def test_scripts_of_the_29(code):
    """The FLORES code names the script that the tinyworld writes the language in."""
    messages = [("building", {"city": "miren", "place": place}) for place in KEYS["place"]]
    text = "".join(render_sentence(load_language(code), message) for message in messages)
    names = [unicodedata.name(ch) for ch in text if ch.isalpha()]
    assert sum(name.startswith(SCRIPTS[NAMES[code][2][4:]]) for name in names) > len(names) / 5


def test_codes():
    names = ("kk", "kaz_Cyrl", "KAZ-cyrl", "EN", "zho_Hans", "klingon", "")
    assert [find_code(name) for name in names] == ["kk", "kk", "kk", "en", "zh", None, None]


# ---------------------------------------------------------------------- the set

def test_everything_there_is(raw):
    """With counts above what there is: every direction with a pivot, both ways, and only en and zh natively."""
    out = build(raw, counts={"instruction": 100, "translation": 1000, "question": 100, "summary": 100,
                             "explanation": 100})
    made = read(out)
    assert {name: len(rows) for name, rows in made.items()} == {
        "chat/en.jsonl": 30, "chat/zh.jsonl": 5,
        "crosslingual/en-kk.jsonl": 40 + 6 + 1, "crosslingual/kk-en.jsonl": 40 + 6 + 1 + 1,
        "crosslingual/zh-kk.jsonl": 10 + 6,
        "crosslingual/kk-zh.jsonl": 10 + 1, "crosslingual/zh-en.jsonl": 6, "crosslingual/en-zh.jsonl": 1,
        "crosslingual/en-de.jsonl": 20 + 1 + 1, "crosslingual/de-en.jsonl": 20 + 1 + 1, "crosslingual/de-zh.jsonl": 1}
    account = json.loads((out / "account.json").read_text())
    assert account["categories"]["translation"] == {"asked": 1000, "available": 144, "written": 144}
    assert account["passed_over"] == {"both sides alike": 2, "an empty side": 2, "unreadable pair": 1,
                                      "no JSON object": 2,
                                      "neither side is English or Chinese": 1}
    assert account["languages"] == 4 and sum(account["directions"].values()) == sum(map(len, made.values()))
    assert made["chat/en.jsonl"][3] == {"instruction": "do 3", "output": "done 3", "kind": "instruction"}


@pytest.mark.parametrize("file, kind, asked, told", [
    ("en-kk", "translation", "Provide the Kazakh translation for this sentence: sentence 7", "сөйлем 7"),
    ("kk-en", "translation", "Provide the English translation for this sentence: сөйлем 7", "sentence 7"),
    ("zh-kk", "translation", "提供这句话的哈萨克语翻译：句子7", "сөйлем 7"),
    ("kk-zh", "translation", "提供这句话的中文翻译：сөйлем 7", "句子7"),
    ("de-en", "translation", "Provide the English translation for this sentence: Satz 7", "phrase 7"),
    ("kk-en", "question", "Answer this question in English: Кім 2?", "I 2."),
    ("zh-kk", "question", "用哈萨克语回答这个问题：谁2？", "Мен 2."),
    ("zh-en", "question", "用英语回答这个问题：谁2？", "I 2."),
    ("de-zh", "summary", "用中文概括这段文字：langer Text", "长文"),
    ("en-de", "explanation", "Explain in German what this means: inflation", "Preise steigen")])
def test_what_is_asked(raw, file, kind, asked, told):
    """In the pivot's words, between two pivots in the source's; translation prompts are those of BayLing's scripts."""
    row = {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": told}], "kind": kind,
           "source": file[:2], "target": file[3:]}
    assert row in read(build(raw, out=f"{file}-{kind}"))[f"crosslingual/{file}.jsonl"]


def test_prompts_hold_each_category():
    for hub in PIVOTS:
        assert set(PROMPTS[hub]) == set(recipe.FIELDS)
        assert all("{tgt}" in p and p.endswith("{x}") for p in PROMPTS[hub].values())


def test_counts_are_exact_and_even(raw):
    """14 translations over 6 directions are 2 or 3 of each; what a small direction leaves goes to the others."""
    out = build(raw, counts={"instruction": 9, "translation": 28, "question": 5}, aligned=str(raw / "none"), scale=0.5)
    account = json.loads((out / "account.json").read_text())
    assert {k: v["written"] for k, v in account["categories"].items()} == {"instruction": 4, "translation": 14,
                                                                           "question": 0}
    assert sum(n for d, n in account["directions"].items() if d.startswith("translation")) == 14
    assert {n for d, n in account["directions"].items() if d.startswith("translation")} == {2, 3}
    assert recipe.split_evenly(20, {"a": 1, "b": 100, "c": 4, "d": 100}) == {"a": 1, "c": 4, "b": 7, "d": 8}
    assert recipe.split_evenly(20, {"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert recipe.split_evenly(0, {"a": 1}) == {"a": 0}


def test_the_default_is_the_papers_sum():
    assert sum(recipe.BayLing(out="x", instructions={}).counts.values()) == 3_200_000


def test_same_seed_same_bytes(raw):
    few = dict(counts={"instruction": 10, "translation": 20})
    a, b, c = (build(raw, out=name, seed=seed, **few) for name, seed in (("a", 0), ("b", 0), ("c", 1)))

    def bytes_of(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert bytes_of(a) == bytes_of(b) != bytes_of(c) and bytes_of(a).keys() == bytes_of(c).keys()


def test_every_row_is_as_likely(raw):
    """5 of 30 chats, 60 times: each is expected 10 times, standard deviation 2.9."""
    (raw / "zh.jsonl").unlink()
    taken = Counter()
    for seed in range(60):
        out = build(raw, out=f"o{seed}", seed=seed, counts={"instruction": 5},
                    instructions={"en": str(raw / "en.jsonl")})
        taken.update(row["output"] for row in read(out)["chat/en.jsonl"])
    assert taken.total() == 300 and len(taken) == 30 and 1 <= min(taken.values()) and max(taken.values()) <= 21


def test_chosen_languages(raw):
    out = build(raw, languages=["deu_Latn"])
    assert {code for p in (out / "crosslingual").iterdir() for code in p.stem.split("-")} == {"en", "zh", "de"}


@pytest.mark.slow
def test_data_is_streamed(raw):
    """80,000 instructions of 30 MB take less than a fifth of that: blocks of 1 MiB, and 256 rows of each direction."""
    lines = (f"a long sentence in which number {i} stands {'x' * 60}\tune phrase {i} {'y' * 60}\n"
             for i in range(40_000))
    (raw / "bitext/en-fr.tsv").write_text("".join(lines))
    tracemalloc.start()
    out = build(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(p.stat().st_size for p in out.rglob("*.jsonl"))
    assert size > 27e6 and peak < size / 5, (peak, size)


# ---------------------------------------------------------------------- bad input

@pytest.mark.parametrize("settings, message", [
    ({"instructions": {"kk": "x"}}, r"instructions are in en and zh only.*take out \['kk'\]"),
    ({"languages": ["kk", "tlh"]}, r"\['tlh'\] are not in recipes/bayling_languages.py"),
    ({"languages": ["kk", "sw"]}, r"binds \['sw'\] to English or Chinese"),
    ({"counts": {"poems": 3}}, r"\['poems'\] are no categories; they are instruction, translation"),
    ({"scale": 0.0}, "scale and max_chars"), ({"counts": {"question": -1}}, "whole numbers from 0"),
    ({"instructions": {"en": "/nowhere/*"}}, "no chat in /nowhere"),
    ({"instructions": {}, "bitext": "/nowhere", "aligned": "/nowhere"}, "nothing was found")])
def test_settings_that_do_not_fit(raw, settings, message):
    with pytest.raises(ValueError, match=message):
        build(raw, **settings)
    assert not (raw / "out/account.json").exists()


def test_a_file_without_languages(raw):
    (raw / "bitext/pairs.tsv").write_text("a\tb\n")
    with pytest.raises(ValueError, match=r"pairs.tsv: name it or its folder like en-kk.tsv"):
        build(raw)


def test_a_finished_set_is_not_touched_and_an_unfinished_one_is_begun_anew(raw):
    (raw / "out/chat").mkdir(parents=True)
    (raw / "out/chat/en.part").write_text("half of a li")
    out = build(raw)
    assert not list(out.rglob("*.part")) and len(read(out)["chat/en.jsonl"]) == 30
    with pytest.raises(ValueError, match="holds a finished instruction set"):
        build(raw)


def test_command(raw):
    command = [sys.executable, str(ROOT / "recipes/bayling_data.py"), f"instructions={{'en': '{raw}/en.jsonl'}}",
               f"out={raw}/o",
               "scale=1e-5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "instruction          12 of 12 asked for\n" in done.stdout, done
    assert "translation           0 of 14 asked for: there is no more" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and again.stderr.startswith("ValueError: ") and "Traceback" not in again.stderr


# ---------------------------------------------------------------------- configs

@pytest.mark.parametrize("name, base, shards", [
    ("llama2_7b", "Llama-2-7b-hf", "llama2"), ("llama2_13b", "Llama-2-13b-hf", "llama2"),
    ("llama3_8b", "Meta-Llama-3-8B", "llama3")])
def test_training_configs(name, base, shards):
    import train
    from model import ModelConfig
    c, *_ = configs.load(train.Train, ModelConfig, train.Estimate, argv=[str(ROOT / f"configs/bayling/{name}.py")])
    assert c.init.endswith(base) and c.data == f"tokens/bayling-{shards}" and c.lr == 2e-5 and c.weight_decay == 0
    assert c.tokens == 3 * 3_200_000 * 250 and c.batch_size * c.seq_len == 128 * 256
    counts = recipe.BayLing(out="x", instructions={}).counts
    star = sum(n for k, n in counts.items() if k != "instruction")
    assert c.mixture["crosslingual"] / sum(c.mixture.values()) == pytest.approx(star / sum(counts.values()), abs=0.01)


@pytest.mark.parametrize("name, template", [("data", "bayling"), ("data_llama3", "bayling-llama3")])
def test_data_configs(raw, monkeypatch, name, template):
    """Every file that was written is a source; a language's four directions are one language of the mixture."""
    build(raw, out="raw/bayling")
    monkeypatch.chdir(raw)
    values = runpy.run_path(str(ROOT / f"configs/bayling/{name}.py"))
    assert {s["path"] for s in values["sources"]} == set(read(raw / "raw/bayling")) and values["template"] == template
    assert {s["language"] for s in values["sources"] if s["category"] == "crosslingual"} == {"kk", "de", "zh", "en"}
    assert all(s["kind"] == "chat" for s in values["sources"])
