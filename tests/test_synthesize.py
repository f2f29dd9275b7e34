"""corpus/synthesize.py and recipes/synthetic_data.py: prompts to the letter, filters on planted and clean answers,
ROUGE-L against a naive one, an endpoint that fails in every way, kills, and a tiny checkpoint that answers."""
import fcntl
import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from test_client import Endpoint, hang_up, key, reply, serve, waits  # noqa: F401

import tokenizer
from configs import language_table
from configs.refusals import REFUSALS
from corpus import clean, knowledge, read, synthesize
from corpus.read import Document
from generate import complete, generate
from model import ModelConfig, Qwen2
from recipes import synthetic_data as recipe

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT.parent / "shared" / "benchmarks"


# ---------------------------------------------------------------------- prompts

ONE = {"subject": ["physics"], "role_2": ["university students"], "type_passage": ["a letter"], "scene": ["at sea"],
       "length": [[60, 90]], "style": ["dry"], "ending": ["a joke"]}
GOLDEN = {
    "explanation": "You are un instituteur, and your field is physics. Explain these keywords to university students: "
                   "вода, 火.\nGive each at least three sentences; a short story may help. Close with a summary, then "
                   "a list of the keywords. Be correct, useful and easy to understand, and do not put everything in "
                   "the same way.\nWrite in Kazakh.",
    "story": "You are un instituteur, and your field is physics. You are about to teach new words to university "
             "students. First write a letter in which every one of these words occurs: вода, 火.\nIt is set at sea. It "
             "has 60 to 90 words, its style is dry, and it ends with a joke.\nWrite in Kazakh.",
    "sample": "You make samples for a collection. These are some of it:\n\n(1) Бірінші {мысал}.\n\n(2) "
              "Екінші\nмысал.\n\nMake one more, of the same field but on something rarer. It should be about as long "
              "and as difficult as these, and sensible to a human reader. Do not mention that there is a given sample "
              "or a created sample: the answer is the new sample and nothing else.\nWrite in Kazakh.",
}


def sorted_lists(prompt):
    """A prompt whose shuffled lists stand in the order of GOLDEN."""
    swaps = {"火, вода": "вода, 火",
             "(1) Екінші\nмысал.\n\n(2) Бірінші {мысал}.": "(1) Бірінші {мысал}.\n\n(2) Екінші\nмысал."}
    for wrong, right in swaps.items():
        prompt = prompt.replace(wrong, right)
    return prompt


def test_golden_prompts():
    made = synthesize.make_requests(list(GOLDEN), 0, "Kazakh", ["вода", "火"], ["un instituteur"],
                               ["Бірінші {мысал}.", "Екінші\nмысал."], 2, 2, ONE)
    rows = list(islice(made, 6))
    assert [sorted_lists(row["prompt"]) for row in rows] == 2 * list(GOLDEN.values())
    assert [row["prompt_kind"] for row in rows] == 2 * list(GOLDEN)
    assert set(rows[1]) == {"prompt", "prompt_kind", "keyword", "persona", *ONE}
    assert rows[1]["length"] == [60, 90] and rows[1]["persona"] == "un instituteur"
    assert set(rows[1]["keyword"].split(", ")) == {"вода", "火"}


def test_prompts_are_pinned():
    """The choices depend on the seed and the lists alone: not on the process, nor on Python's version as far as this
    can tell."""
    def made(seed):
        rows = islice(synthesize.make_requests(list(GOLDEN), seed, "Thai", [f"k{i}" for i in range(9)], ["a", "b\tart"],
                                          list("pqrst")), 30)
        return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()[:16]
    assert made(7) == made(7) != made(8)
    assert made(7) == "b000a35a385cb330"


def test_all_keywords_are_used_alike():
    words = [f"k{i}" for i in range(10)]
    rows = list(islice(synthesize.make_requests(["story", "story", "explanation"], 1, "Thai", words, ["a"],
                                                keywords_each=3), 300))
    for n in range(3):
        lists = [row["keyword"].split(", ") for row in rows[n::3]]
        used = Counter(k for some in lists for k in some)
        assert all(len(set(some)) == 3 for some in lists) and set(used) == set(words)
        assert max(used.values()) - min(used.values()) <= 12 and sum(used.values()) == 300
    assert rows[0::3] != rows[1::3]  # a kind that stands twice is not asked twice


def test_every_slot_of_the_story_is_filled():
    eleven = "role_1 subject type_passage keywords scene length[0] length[1] style role_2 ending language"  # Table 14
    assert sorted(re.findall(r"{(.*?)}", synthesize.PROMPTS["story"])) == sorted(eleven.split())
    for row in islice(synthesize.make_requests(["story"], 2, "Urdu", ["k1", "k2", "k3"],
                                               ["a nurse", "a smith\tmetal work"]), 200):
        assert "{" not in row["prompt"] and "}" not in row["prompt"]
        for name in ("persona", "subject", "type_passage", "scene", "style", "role_2", "ending"):
            assert row[name] and row[name] in row["prompt"]
        assert f"{row['length'][0]} to {row['length'][1]} words" in row["prompt"] and "Write in Urdu." in row["prompt"]
        assert (row["subject"] == "metal work") == (row["persona"] == "a smith")


@pytest.mark.parametrize("lists, said",
                         [(dict(keywords=["a", "b"]), "keywords: a prompt takes 3, there are 2"),
                          (dict(keywords=list("abc"), keywords_each=0), "takes 0"),
                          (dict(keywords=list("abc"), personas=[]), "personas: a prompt takes 1, there are 0"),
                          (dict(kinds=["sample"], seeds=["a"]), "seeds: a prompt takes 3, there are 1")])
def test_too_short_lists(lists, said):
    with pytest.raises(ValueError, match=said):
        next(synthesize.make_requests(**{"kinds": ["story"], "seed": 0, "language": "Thai", "personas": ["a"]} | lists))


# ---------------------------------------------------------------------- knowledge

KNOWLEDGE = [
    ({"question": "2 + 2?", "answer": 4}, "2 + 2?\n\n4"),
    ({"question": " Қанша? \n", "answer": "Төрт.\n", "id": 3, "source": "x", "choices": None, "input": None},
     " Қанша?\n\nТөрт."),
    ({"instruction": "Sort it.", "input": "3 1 2", "output": "1 2 3"}, "Sort it.\n3 1 2\n\n1 2 3"),
    ({"instruction": "Say hello.", "input": "", "output": "Hello."}, "Say hello.\n\nHello."),
    ({"problem": "x + 1 = 3", "solution": "x = 2", "level": "Level 1", "type": "Algebra"}, "x + 1 = 3\n\nx = 2"),
    ({"prompt": "\n  \ndef f(x):\n    \"\"\"Half.\"\"\"\n", "completion": "\n    return x / 2\n"},
     "def f(x):\n    \"\"\"Half.\"\"\"\n\n    return x / 2"),
    ({"question": "Which?", "choices": ["red", "green"], "answer": 1}, "Which?\nA. red\nB. green\n\nB. green"),
    ({"question": "Which?", "choices": ["red", "green"], "answer": "A"}, "Which?\nA. red\nB. green\n\nA. red"),
    ({"question": "Which?", "choices": ["red", "green"], "answer": "green", "subject": "art"},
     "Which?\nA. red\nB. green\n\nB. green"),
    ({"question": "Which?", "choices": ["B", "A"], "answer": "A"},
     "Which?\nA. B\nB. A\n\nB. A"),  # a choice comes before its letter
    ({"question": "Neden?", "input": "Metin.", "choices": ["bir", "iki"], "answer": 0},
     "Neden?\nMetin.\nA. bir\nB. iki\n\nA. bir"),
]


@pytest.mark.parametrize("row, text", KNOWLEDGE)
def test_knowledge_as_text(row, text):
    assert knowledge.format_knowledge(row) == text


@pytest.mark.parametrize("row, said", [
    ({"query": "a", "response": "b"}, r"\['query', 'response'\].*question\+answer.*instruction\+output"),
    ({}, "known are"),
    ({"question": "a", "answer": "b", "rationale": "c"}, r"\['rationale'\]"),
    ({"question": "a", "solution": "b"}, r"\['question', 'solution'\]"),
    ({"question": "a", "answer": "b", "prompt": "c", "completion": "d"}, r"\['completion', 'prompt'\]"),
    ({"question": "", "answer": "b"}, "not empty"), ({"question": "a", "answer": None}, "None"),
    ({"question": "a", "answer": ["b"]}, "not empty"),
    ({"question": True, "answer": "b"}, "True"), ({"question": "a", "answer": "b", "input": {}}, "{}"),
    ({"question": "a", "choices": ["b", "c"], "answer": 2}, "got .* 2"),
    ({"question": "a", "choices": ["b", "c"], "answer": -1}, "-1"),
    ({"question": "a", "choices": ["b", "c"], "answer": "C"}, "'C'"),
    ({"question": "a", "choices": ["b", "c"], "answer": True}, "True"),
    ({"question": "a", "choices": ["b", ""], "answer": 0}, "choices"),
    ({"question": "a", "choices": "bc", "answer": "b"}, "choices"),
    ({"question": "a", "choices": [], "answer": "b"}, "choices"),
    ({"question": "a", "choices": ["x"] * 27, "answer": 0}, "26"),
    ({"question": "a", "choices": ["b", "c"], "answer": ["b"]}, "choices"),
])
def test_knowledge_that_is_refused(row, said):
    with pytest.raises(ValueError, match=said):
        knowledge.format_knowledge(row)


# ---------------------------------------------------------------------- words

@pytest.mark.parametrize("text, words", [
    ("Don't stop, OLD_man!", "don t stop old man"), ("नमस्ते दुनिया।", "नमस्ते दुनिया"), ("বাংলা ভাষা", "বাংলা ভাষা"),
    ("漢字です 2024年", "漢 字 で す 2024 年"),
    ("ที่นี่ x", "ที่ นี่ x"), ("안녕 하세요", "안녕 하세요"), ("می\u200cخواهم", "میخواهم"), ("ＡＢＣ １２", "abc 12"),
    ("e\u0301te\u0301", "été"),
    ("co\u00adop", "coop"), ("", ""), ("... !? —", ""), ("кітап-дәптер", "кітап дәптер"), ("១២ ខ្មែរ", "១ ២ ខ្ មែ រ")])
def test_words(text, words):
    assert synthesize.split_words(text) == tuple(words.split())


# ---------------------------------------------------------------------- filters

CLEAN = {
    "en": "Mira kept bees behind the old school. Every spring she painted the hives in new colours so that each swarm "
          "knew its door. When the river rose, the children carried the hives up the hill, and nobody was stung. I'm "
          "sorry, she said to the bees, we are late.",
    "zh": "村子里有一座小桥，桥下的水很清。每天早晨，老王都牵着牛从桥上走过，去山那边的田里干活。"
          "有一天下了大雨，桥被冲坏了，孩子们不能上学，大家就一起砍来木头，三天修好了新桥。",
    "kk": "Ауыл шетінде қарт бағбан тұрады. Ол алма ағаштарын күн сайын суарып, балаларға күтім жасауды үйретеді. "
          "Күзде бүкіл ауыл жиналып, жеміс тереді. Ең үлкен алманы бағбан мектепке сыйлайды, ал оқушылар оған өлең "
          "оқиды.",
    "ru": "На краю деревни стоит мельница, которой уже двести лет. Мельник встаёт до рассвета и слушает ветер. Если "
          "ветер с юга, он мелет рожь, если с севера, чинит крылья и пьёт чай. Дети любят приходить к нему и "
          "спрашивать, куда дует сегодня.",
    "ar": "في آخر الشارع مكتبة صغيرة تفتح أبوابها بعد صلاة العصر. صاحبتها سيدة كبيرة تعرف كل كتاب على الرفوف وتروي "
          "للأطفال قصة كل يوم. ذات مساء انقطع النور، فأشعلت شمعة وأكملت الحكاية حتى عاد الضوء.",
    "th": "คุณยายปลูกมะม่วงไว้หลังบ้านสามต้น ทุกฤดูร้อนหลานๆ จะมาช่วยกันเก็บผลไม้ใส่ตะกร้า แล้วนำไปแจกเพื่อนบ้าน "
          "วันหนึ่งมีนกตัวเล็กมาทำรังบนต้นที่สูงที่สุด ทุกคนจึงรอจนลูกนกบินได้ก่อนจะเก็บมะม่วง",
    "ne": "पहाडको फेदीमा एउटा सानो गाउँ छ। त्यहाँका मानिसहरू बिहानै उठेर खेतमा जान्छन्। हिउँदमा बाटो बन्द हुँदा शिक्षकले "
          "घरमै केटाकेटीलाई पढाउनुहुन्छ। वसन्त आएपछि सबै मिलेर नयाँ बाटो बनाउँछन् र बजारसम्म तरकारी लैजान्छन्।",
    "ja": "山のふもとに小さな駅があります。朝と夕方だけ列車が止まり、駅長さんは花に水をやりながら客を待ちます。"
          "ある冬の日、雪で列車が遅れたとき、駅長さんは温かいお茶を配り、みんなで歌を歌って待ちました。",
    "tr": "Deniz kıyısındaki fenerin bekçisi her akşam aynı saatte merdivenleri çıkar. Lambayı yakmadan önce ufka "
          "bakar ve gemileri sayar. Bir gece sis o kadar yoğundu ki çanı çaldı, balıkçılar sesi duyup limana döndüler.",
    "ko": "언덕 위의 빵집은 새벽 네 시에 불을 켭니다. 할머니는 반죽을 하며 라디오를 듣고, 손자는 오븐을 지킵니다. 눈이 "
          "많이 온 날에는 마을 사람들이 길을 치워 주고, 할머니는 모두에게 따뜻한 빵을 하나씩 나누어 주었습니다. 그날 "
          "아침에는 온 동네에 빵 냄새가 가득했습니다.",
}
PROMPT = ("Explain these keywords to adults: apple, river, moon.\nGive each at least three sentences and close with a "
          "summary of it all, please.")


def steps(seeds=(), **more):
    return [partial(synthesize.check_answer,
                    **{"min_words": 20, "max_words": 400, "banned": synthesize.BANNED, "refusals": REFUSALS} | more),
            partial(synthesize.check_repetition, max_echo=0.3, max_repeated=0.3), synthesize.novelty_filter(0.7, seeds)]


def reason(text, some=None, prompt=PROMPT, finish="stop"):
    doc = Document(text, more={"prompt": prompt, "finish": finish})
    return next((reason for step in some or steps() if (reason := step(doc)) is not None), None)


def test_clean_answers_are_kept():
    some = steps()
    assert {code: reason(text, some) for code, text in CLEAN.items()} == dict.fromkeys(CLEAN)


def test_declarations_are_kept():
    """The Universal Declaration, ten lines at a time, in all languages at hand: much the same words in every
    sentence."""
    folder = BENCHMARKS / "udhr2"
    if not folder.exists():
        pytest.skip("no declarations here")
    for path in sorted(folder.glob("*.txt")):
        lines = [line.strip() for line in path.read_text(errors="ignore").split("\n") if line.strip()]
        texts = ["\n".join(lines[i:i + 10]) for i in range(0, len(lines) - 9, 10)]
        some = steps(max_words=10 ** 4)
        assert [reason(text, some) for text in texts] == [None] * len(texts), path.name


def test_clean_answers_have_their_language():
    pytest.importorskip("py3langid")
    identify = clean.load_langid(set(language_table.NAMES))
    for code, text in CLEAN.items():
        assert clean.filter_language(Document(text), identify, [code]) is None
        assert clean.filter_language(Document(text), identify, ["vi"]) == f"language: {code}"


@pytest.mark.parametrize("code", CLEAN)
@pytest.mark.parametrize("how, begins", [
    (lambda x: "", "empty"), (lambda x: " \n ", "empty"), (lambda x: "!!! …", "empty"),
    (lambda x: " ".join(x.split()[:3])[:15], "length: too short"),
    (lambda x: x + " As an AI, " + x[::-1], "banned: as an AI"),
    (lambda x: "Unlike the GIVEN  sample, " + x, "banned: given sample"),
    (lambda x: x + " (created-sample)", "banned: created sample"), (lambda x: "作为一个人工智能，" + x, "banned: 作为"),
    (lambda x: "I’m sorry, but I can’t do that. " + x, "refusal: I'm sorry, but I can't"),
    (lambda x: "抱歉，我无法" + x, "refusal: 抱歉"),
    (lambda x: "К сожалению, нет. Извините, но я не могу. " + x, None),
    (lambda x: "Извините, но я не могу: " + x, "refusal: Извините"),
    (lambda x: x + " \ufffd", "broken"), (lambda x: x + " \ud83d", "broken"), (lambda x: x + " " + x, "repetition"),
    (lambda x: x[:40] + " ".join(["la li lu le lo"] * 30), "repetition"),
    (lambda x: PROMPT + " " + " ".join(x.split()[:4])[:20], "echo")])
def test_planted_faults_are_caught(code, how, begins):
    found = reason(how(CLEAN[code]))
    assert found is None if begins is None else found and found.startswith(begins), found


def test_what_only_looks_like_a_fault_is_kept():
    text = CLEAN["en"]
    for more in ("It served as an aid to all.", "The sample was given to her.", "She said: I can't help you.",
                 "The samples, given away, were few."):
        assert reason(f"{text} {more}") is None
    assert reason(f"{text} Apple, river and moon were the keywords.") is None  # what a prompt asks for
    assert reason(text, finish="length") == "cut: no end" and reason(text, finish=None) is None
    assert reason(text, finish="content_filter") == reason(text, finish="refusal") == "refusal: by the endpoint"
    assert reason("word " * 500) == "length: too long"
    assert reason(text, steps(banned=["Behind the old"])) == "banned: Behind the old"


def test_a_prompt_copied_in_other_scripts_is_an_echo():
    for code in ("zh", "th", "ne", "kk"):
        assert reason(CLEAN[code], prompt=f"(1) {CLEAN[code]}\nMake one more.") == "echo: of the prompt"
        assert reason(CLEAN[code], prompt=f"(1) {CLEAN['en']}\nMake one more.") is None


def test_news_is_kept():
    """Every fourth article in 7 languages."""
    folder = BENCHMARKS / "ntrex128"
    if not folder.exists():
        pytest.skip("no NTREX here")
    names, some = (folder / "DOCUMENT_IDS.tsv").read_text().split("\n"), steps(max_words=10 ** 5)
    for path in sorted(folder.glob("newstest*.txt")):
        documents = {}
        for name, line in zip(names, path.read_text().split("\n")):
            documents.setdefault(name, []).append(line)
        texts = [text for lines in list(documents.values())[::4]
                 if len(synthesize.split_words(text := "\n".join(lines))) >= 20]
        assert len(texts) > 25 and [reason(text, some) for text in texts] == [None] * len(texts)


# ---------------------------------------------------------------------- ROUGE-L

def naive_lcs(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_lcs_is_exact(size):
    r = random.Random(size)
    for _ in range(150):
        a, b = ([r.randrange(size) for _ in range(r.randrange(75))] for _ in range(2))
        assert synthesize.lcs_length(a, b) == synthesize.lcs_length(b, a) == naive_lcs(a, b)
        assert synthesize.lcs_length(a, a) == len(a)


@pytest.mark.parametrize("a, b, n",
                         [("", "", 0), ("", "abc", 0), ("abc", "", 0), ("abc", "abc", 3), ("abc", "cba", 1),
                          ("aaaa", "aa", 2),
                          ("abcbdab", "bdcaba", 4),
                          ("x" * 200, "x" * 130, 130), ("ab" * 100, "ba" * 100, 199), ("abc", "xyz", 0),
                          ("a", "a", 1)])
def test_lcs_at_the_edges(a, b, n):
    assert synthesize.lcs_length(a, b) == synthesize.lcs_length(b, a) == n == naive_lcs(a, b)


def naive_novelty(most, seeds, texts):
    """The verdicts by comparing everything with everything (lcs itself is tested above)."""
    kept, out = [synthesize.split_words(s) for s in dict.fromkeys(seeds)], []
    seeds = len(kept)
    for text in texts:
        a = synthesize.split_words(text)
        k = next((k for k, b in enumerate(kept) if 2 * synthesize.lcs_length(a, b) >= most * (len(a) + len(b))), None)
        same = a in kept
        if same:
            out.append("duplicate: exact")
        elif k is not None:
            out.append(f"novelty: too like {'a seed' if k < seeds else 'an answer kept'}")
        else:
            out.append(None)
            kept.append(a)
    return out


def drifting(r, size, n):
    """Texts of which many are others with some words changed, moved, left out."""
    out = []
    for _ in range(n):
        if out and r.random() < 0.7:
            words = r.choice(out).split()
            for _ in range(r.randrange(max(1, len(words)))):
                k = r.randrange(len(words))
                words[k:k + r.choice((0, 1, 1))] = [f"w{r.randrange(size)}"] if r.random() < 0.7 else []
                words = words or ["w0"]
        else:
            words = [f"w{r.randrange(size)}" for _ in range(r.randint(1, 40))]
        out.append(" ".join(words))
    return out


@pytest.mark.parametrize("most", [0.05, 0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("size", [3, 30, 3000])
def test_the_bound_never_changes_a_verdict(most, size):
    """3,000 words share the 512 bags of the bound."""
    r = random.Random(f"{most} {size}")
    texts = drifting(r, size, 80)
    seeds, texts = texts[:20], texts[20:] + texts[10:20]
    r.shuffle(texts)
    step = synthesize.novelty_filter(most, seeds)
    verdicts = [step(Document(text)) for text in texts]
    assert verdicts == naive_novelty(most, seeds, texts)
    assert len(set(verdicts)) >= 2  # some are caught


def test_words_said_more_often_than_a_byte_counts():
    """The bags of the bound are bytes."""
    texts = [" ".join(["a"] * n + ["b"] * m + ["c"] * k) for n, m, k in
             ((300, 10, 0), (600, 300, 5), (200, 0, 0), (301, 40, 0), (255, 10, 0), (256, 256, 256), (256, 300, 200),
              (900, 1, 1),
              (10, 10, 10))]
    for most in (0.4, 0.6, 0.8, 0.95):
        step = synthesize.novelty_filter(most)
        assert [step(Document(text)) for text in texts] == naive_novelty(most, [], texts)


def test_a_verdict_at_the_threshold_itself():
    """One word of three has F1 0.5, two of three have 0.8: not below most."""
    for most, kept, new in ((0.5, "a b c", "b"), (0.5, "b", "a b c"), (0.8, "a b c", "a c"), (0.5, "a b", "b c")):
        step = synthesize.novelty_filter(most)
        assert step(Document(kept)) is None and step(Document(new)) == "novelty: too like an answer kept"
        step = synthesize.novelty_filter(most + 1e-9)
        assert step(Document(kept)) is None and step(Document(new)) is None


def test_the_bound_skips_most_comparisons(monkeypatch):
    """Unrelated texts of 150 words, some of them frequent, as in a language: fewer than one pair in a hundred is
    compared."""
    r, calls, lcs = random.Random(3), [], synthesize.lcs_length
    monkeypatch.setattr(synthesize, "lcs_length", lambda a, b: calls.append(1) or lcs(a, b))
    weights = [1 / (k + 5) for k in range(5000)]
    texts = [" ".join(f"w{k}" for k in r.choices(range(5000), weights, k=150)) for _ in range(300)]
    step = synthesize.novelty_filter(0.7)
    assert all(step(Document(text)) is None for text in texts) and len(calls) < 0.01 * 300 * 299 / 2
    assert step(Document(" ".join(texts[7].split()[:-20]))) == "novelty: too like an answer kept"


def test_novelty_knows_seeds_copies_and_near_copies():
    text = CLEAN["th"]
    step = synthesize.novelty_filter(0.7, [CLEAN["en"], CLEAN["en"], CLEAN["zh"]])
    assert step(Document(CLEAN["en"].upper())) == "duplicate: exact"
    assert step(Document(CLEAN["zh"].replace("桥", "路"))) == "novelty: too like a seed"
    assert step(Document(text)) is None and step(Document(text + "!")) == "duplicate: exact"
    assert step(Document(text.replace("หลานๆ", "เด็กน้อย"))) == "novelty: too like an answer kept"
    assert step(Document(CLEAN["kk"])) is None


def test_novelty_remembers_more_than_its_first_room():
    step = synthesize.novelty_filter(0.7)
    texts = [f"a{i} b{i} c{i} d{i} e{i}" for i in range(300)]
    assert all(step(Document(text)) is None for text in texts)
    assert all(step(Document(text.replace("c", "x"))) == "novelty: too like an answer kept" for text in texts)


# ---------------------------------------------------------------------- the program

def answer(prompt):
    """What the endpoint says to a prompt, always the same: forty words, or one of the faults."""
    r = random.Random(prompt)
    text = " ".join(f"{r.choice('bdfgklmnprst')}{r.choice('aeiou')}{r.choice('lmnrst')}{r.choice('aeiou')}"
                    for _ in range(40))
    return {0: "I'm sorry, but I can't help with that.", 1: "", 2: "As an AI, " + text,
            3: "too short"}.get(r.randrange(16), text)


@pytest.fixture(scope="module")
def shared_lists(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    (folder / "kw.txt").write_text("\ufeffөзен\nүй\n\nбазар\n көпір \nүй\nқала\nнан\nтаң\n")
    (folder / "p.txt").write_text("a nurse\na smith\tmetal work\nмұғалім\n")
    rows = [{"text": CLEAN["kk"]}, {"question": "2 + 2?", "answer": 4}, {"text": CLEAN["ru"]},
            {"problem": "x", "solution": "y", "id": 1}]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def line_of(folder):
    return [f"keywords={folder}/kw.txt", f"personas={folder}/p.txt", f"seeds={folder}/seeds.jsonl", "language=kk",
            "langid=[]",
            "n=60"]


@pytest.fixture
def words(shared_lists, tmp_path):
    """The command line without who answers; its files may be changed."""
    shutil.copytree(shared_lists, tmp_path, dirs_exist_ok=True)
    return line_of(tmp_path)


def told(url, **more):
    return [f"endpoint={url}", "name=m", *(f"{k}={v!r}" for k, v in more.items())]


FINAL = ("synthetic.jsonl", "rejects.jsonl", "account.json")


def finals(out):
    return {name: (out / name).read_bytes() for name in FINAL}


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def endpoint(serve):
    return serve(lambda number, body: reply(answer(body["messages"][0]["content"])))


@pytest.fixture(scope="module")
def uninterrupted(shared_lists, key, tmp_path_factory):
    """The folder of a run, and the requests that the endpoint saw."""
    out = tmp_path_factory.mktemp("whole")
    server = Endpoint(lambda number, body: reply(answer(body["messages"][0]["content"])))
    recipe.main([*line_of(shared_lists), *told(server.url, threads=1), f"out={out}"])
    server.shutdown()
    server.server_close()
    return out, server.seen


@pytest.fixture
def whole(uninterrupted, tmp_path):
    return shutil.copytree(uninterrupted[0], tmp_path / "whole")


def test_everything_is_accounted_for(uninterrupted):
    out, seen = uninterrupted
    account = json.loads((out / "account.json").read_text())
    kept, bad, raw = (rows_of(out / name) for name in (*FINAL[:2], "raw.jsonl"))
    assert account["read"] == 60 == len(raw) == len(seen)
    assert account["kept"] == len(kept) and sum(account["dropped"].values()) == len(bad) == 60 - len(kept)
    assert account["dropped"] == dict(Counter(row["reason"] for row in bad))
    assert list(account) == ["read", "kept", "dropped"]
    assert {reason.split(":")[0] for reason in account["dropped"]} == {"empty", "refusal", "banned", "length",
                                                                       "duplicate"}
    ids = [row["id"] for row in raw]
    assert ids == sorted(ids) and len(set(ids)) == 60 and sorted(row["id"] for row in kept + bad) == ids
    said = {row["id"]: row["text"] for row in raw}
    for row in kept:
        assert row["text"] == said[row["id"]] == answer(row["prompt"]) and row["prompt_kind"] in synthesize.PROMPTS
        assert (row["prompt_kind"] == "sample") == (not row["keyword"])
        assert set(row) >= {"text", "id", "prompt_kind", "keyword", "persona", "prompt"}
    assert all(row["text"] == said[row["id"]] and set(row) == {"id", "reason", "text"} for row in bad)
    keywords = {k for row in kept if row["keyword"] for k in row["keyword"].split(", ")}
    assert keywords == {"өзен", "үй", "базар", "көпір", "қала", "нан", "таң"}
    prompts = [body["messages"][0]["content"] for _, _, body in seen]
    assert "(1) " in prompts[2] and "2 + 2?\n\n4" in "".join(prompts) and all("Write in Kazakh." in p for p in prompts)
    assert all("үй, үй" not in p and "\ufeff" not in p for p in prompts)
    assert {"max_tokens", "temperature"} <= set(seen[0][2])
    assert "sk-secret" not in "".join(str(f.read_bytes()) for f in out.iterdir())
    source = list(read.read_documents(out / "synthetic.jsonl"))  # as prepare.py reads it
    assert [doc.text for doc in source] == [row["text"] for row in kept] and not any(doc.reason for doc in source)


def test_threads_and_late_answers_do_not_show(words, whole, serve, tmp_path):
    def late(number, body):
        time.sleep(random.random() / 50)
        return reply(answer(body["messages"][0]["content"]))
    url, seen = serve(late)
    recipe.main([*words, *told(url, threads=8), f"out={tmp_path}/late"])
    assert finals(tmp_path / "late") == finals(whole)
    assert (tmp_path / "late/raw.jsonl").read_bytes() == (whole / "raw.jsonl").read_bytes()
    assert [body for _, _, body in seen] != sorted((body for _, _, body in seen), key=str) and len(seen) == 60


def test_faults_on_the_way_do_not_show(words, whole, serve, waits, tmp_path):
    faults = {3: (429, b""), 8: (500, b""), 9: hang_up, 15: (200, b"{"), 16: (503, b""), 17: (200, b'{"error": {}}')}
    url, seen = serve(lambda number, body: faults.get(number) or reply(answer(body["messages"][0]["content"])))
    recipe.main([*words, *told(url, threads=3), f"out={tmp_path}/out"])
    assert finals(tmp_path / "out") == finals(whole) and len(seen) == 66


def test_a_cut_file_goes_on(words, whole, endpoint, tmp_path):
    """Cut anywhere: in a line, behind it, at nothing; the same bytes in the end, and only what is missing is asked."""
    raw, out = (whole / "raw.jsonl").read_bytes(), tmp_path / "cut"
    out.mkdir()
    ends = [i + 1 for i, b in enumerate(raw) if b == 10]
    for size in (0, 1, ends[0] - 1, ends[0], ends[30] - 2, ends[30], ends[58] + 20, ends[59] - 1, ends[59]):
        (out / "raw.jsonl").write_bytes(raw[:size])
        endpoint[1].clear()
        recipe.main([*words, *told(endpoint[0]), f"out={out}"])
        assert finals(out) == finals(whole) and (out / "raw.jsonl").read_bytes() == raw
        assert len(endpoint[1]) == 60 - sum(end <= size for end in ends)


def test_more_and_fewer_requests(words, whole, endpoint, tmp_path):
    recipe.main([*words, *told(endpoint[0]), f"out={tmp_path}/more", "n=100"])
    endpoint[1].clear()
    recipe.main([*words, *told(endpoint[0]), f"out={whole}", "n=100"])
    assert len(endpoint[1]) == 40 and finals(whole) == finals(tmp_path / "more")
    recipe.main([*words, *told(endpoint[0]), f"out={tmp_path}/fewer", "n=30"])
    endpoint[1].clear()
    recipe.main([*words, *told(endpoint[0]), f"out={whole}", "n=30"])
    assert not endpoint[1] and finals(whole) == finals(tmp_path / "fewer")
    lines = (whole / "raw.jsonl").read_bytes().splitlines(keepends=True)
    # ten are missing, and forty too many are there
    (whole / "raw.jsonl").write_bytes(b"".join(lines[:10] + lines[20:]))
    recipe.main([*words, *told(endpoint[0]), f"out={whole}", "n=30"])
    assert len(endpoint[1]) == 10 and finals(whole) == finals(tmp_path / "fewer")


@pytest.mark.parametrize("word",
                         ["seed=1", "max_new=5", "name=other", "kinds=['story']", "keywords_each=2",
                          "body={'top_p': 0.5}",
                          "temperature=0.1"])
def test_answers_to_other_requests_are_not_used(words, whole, endpoint, word):
    with pytest.raises(ValueError, match=r"raw.jsonl: 0000\S* answers a request that these settings do not make.*out="):
        recipe.main([*words, *told(endpoint[0]), f"out={whole}", word])
    assert (whole / "raw.jsonl").read_bytes().count(b"\n") == 60


@pytest.mark.parametrize("line", [b"{}", b"no json", b"[1]", b'"x"', b"\xff"])
def test_a_damaged_line_is_named(words, whole, endpoint, line):
    raw = (whole / "raw.jsonl").read_bytes().split(b"\n")
    (whole / "raw.jsonl").write_bytes(b"\n".join([*raw[:4], line, *raw[5:]]))
    with pytest.raises(ValueError, match="raw.jsonl: line 5 is no answer"):
        recipe.main([*words, *told(endpoint[0]), f"out={whole}"])


def test_one_process_at_a_time(words, whole, endpoint):
    with open(whole / "raw.jsonl", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(ValueError, match="in use by another process"):
            recipe.main([*words, *told(endpoint[0]), f"out={whole}"])


def test_a_dead_or_refusing_endpoint_leaves_no_account(words, whole, serve, waits, tmp_path):
    """What came before is kept for the next time; an account of an earlier run does not pass for this one's."""
    for fault, error in (((500, b"down"), ConnectionError), ((401, b"bad key"), ValueError)):
        url, seen = serve(lambda number, body: reply(answer(body["messages"][0]["content"])) if number <= 20 else fault)
        out = tmp_path / error.__name__
        shutil.copytree(whole, out)
        (out / "raw.jsonl").write_bytes(b"")
        with pytest.raises(error, match=f"{url}/chat/completions: HTTP {fault[0]}"):
            recipe.main([*words, *told(url, threads=1), f"out={out}"])
        assert not (out / "account.json").exists() and (out / "raw.jsonl").read_bytes().count(b"\n") == 20


def test_nothing_left(words, serve, tmp_path):
    url, _ = serve(lambda number, body: reply("no"))
    with pytest.raises(ValueError, match="nothing is left.*rejects.jsonl"):
        recipe.main([*words, *told(url), f"out={tmp_path}/none"])
    assert json.loads((tmp_path / "none/account.json").read_text()) == {"read": 60, "kept": 0,
                                                                        "dropped": {"length: too short": 60}}


def test_what_utf8_cannot_hold_is_dropped(words, serve, tmp_path):
    url, _ = serve(lambda number, body: reply("\ud83d half" if number == 1 else answer(body["messages"][0]["content"])))
    recipe.main([*words, *told(url, threads=1), f"out={tmp_path}/out"])
    first, rejected = (rows_of(tmp_path / "out" / name)[0] for name in ("raw.jsonl", "rejects.jsonl"))
    assert rejected == {"id": first["id"], "reason": "broken characters", "text": "\ud83d half"}


def test_the_language_is_checked(words, serve, tmp_path):
    pytest.importorskip("py3langid")
    texts = list(CLEAN)
    url, _ = serve(lambda number, body: reply(CLEAN[texts[number - 1]]))
    line = [*words, *told(url, threads=1), f"out={tmp_path}/out", "langid=None", "kinds=['story']", "seeds=None"]
    recipe.main([*line, f"n={len(texts)}"])
    assert [row["text"] for row in rows_of(tmp_path / "out/synthetic.jsonl")] == [CLEAN["kk"]]
    reasons = [row["reason"] for row in rows_of(tmp_path / "out/rejects.jsonl")]
    assert reasons == [f"language: {code}" for code in texts if code != "kk"]


@pytest.mark.parametrize("answers", [5, 47])
def test_killed_and_resumed(words, whole, serve, tmp_path, answers):
    """kill -9 while requests are under way; then the same command, as a process of its own."""
    started = []

    def how(number, body):
        if number == answers:
            started[0].kill()
            time.sleep(0.05)
        return reply(answer(body["messages"][0]["content"]))
    url, seen = serve(how)
    command = [sys.executable, ROOT / "recipes/synthetic_data.py", *words, *told(url, threads=2), f"out={tmp_path}/out"]
    started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    assert started[0].wait(60) == -signal.SIGKILL and not (tmp_path / "out/account.json").exists()
    assert answers - 16 <= (tmp_path / "out/raw.jsonl").read_bytes().count(b"\n") < answers
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "60 of 60 answers" in ran.stdout and "0 s left" in ran.stdout, ran.stderr
    assert finals(tmp_path / "out") == finals(whole) and len(seen) >= 60 and "sk-secret" not in ran.stdout + ran.stderr


def test_the_end_of_a_wrong_command(words, tmp_path):
    ran = subprocess.run([sys.executable, ROOT / "recipes/synthetic_data.py", *words, f"out={tmp_path}/out"],
                         capture_output=True,
                         text=True)
    assert ran.returncode == 1 and ran.stderr.startswith("ValueError: Synthetic: ") and "Traceback" not in ran.stderr


# ---------------------------------------------------------------------- a checkpoint

CHAT = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{{ '<|im_start|>assistant\\n' }}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny random model, without and with a chat template."""
    base = tmp_path_factory.mktemp("models")
    plain, chatty = base / "plain", base / "chatty"
    tokenizer.train([*CLEAN.values(), *GOLDEN.values()] * 2, 700, plain)
    config = ModelConfig(vocab_size=tokenizer.load(plain).vocab_size, hidden_size=32, intermediate_size=48,
                         num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
                         initializer_range=0.3,
                         tie_word_embeddings=False)
    Qwen2(config).init_weights(6).save_pretrained(plain)
    shutil.copytree(plain, chatty)
    settings = json.loads((chatty / "tokenizer_config.json").read_text())
    (chatty / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": CHAT}))
    return {"plain": plain, "chatty": chatty}


LOCAL = ["n=10", "max_new=24", "batch=4", "min_words=1", "shots=2", "kinds=['story', 'sample']"]


def run(line):
    """raw.jsonl as rows, whether or not any nonsense of a random model is kept."""
    try:
        recipe.main(line)
    except ValueError as e:
        assert "nothing is left" in str(e)
    out = Path(line[-1].removeprefix("out="))
    account = json.loads((out / "account.json").read_text())
    assert account["read"] == 10 == account["kept"] + sum(account["dropped"].values())
    return rows_of(out / "raw.jsonl")


def planned(line):
    """{id: prompt} of a command line."""
    c, = recipe.load(recipe.Synthetic, argv=line)
    lists = [recipe.read_texts(path) for path in (c.keywords, c.personas, c.seeds)]
    return {row["id"]: row["prompt"] for row in recipe.make_requests(c, *lists)}


def test_a_checkpoint_continues_the_prompts(words, folders, tmp_path):
    line = [*words, *LOCAL, f"model={folders['plain']}", "temperature=0.0", f"out={tmp_path}/out"]
    model, t = Qwen2.from_pretrained(folders["plain"]).eval(), tokenizer.load(folders["plain"])
    rows, prompts = run(line), planned(line)
    assert [row["id"] for row in rows] == list(prompts)
    assert [row["text"] for row in rows] == complete(model, t, [prompt + "\n" for prompt in prompts.values()], 24)
    # a text without end is no fault of a model that does not converse
    assert {row["finish"] for row in rows} == {"stop"}


def test_a_checkpoint_answers_through_its_template(words, folders, tmp_path):
    line = [*words, *LOCAL, f"model={folders['chatty']}", "temperature=0.0", f"out={tmp_path}/out"]
    model, t = Qwen2.from_pretrained(folders["chatty"]).eval(), tokenizer.load(folders["chatty"])
    rows, asked = run(line), [t.encode_chat([{"role": "user", "content": prompt}]) for prompt in planned(line).values()]
    expected = generate(model, asked, 24, t.stop_ids)
    assert [row["text"] for row in rows] == [t.decode(ids, prefix=ask) for ids, ask in zip(expected, asked)]
    assert [row["finish"] == "length" for row in rows] == [len(ids) == 24 for ids in expected]
    reasons = {row["id"]: row["reason"] for row in rows_of(tmp_path / "out/rejects.jsonl")}
    assert all(reasons.get(row["id"]) in ("cut: no end", "empty") for row in rows if row["finish"] == "length")


@pytest.mark.parametrize("kind", ["plain", "chatty"])
def test_a_checkpoint_goes_on_after_a_kill(words, folders, kind, tmp_path, monkeypatch):
    """Sampled, and cut in the middle of a batch: the same answers, whatever was there."""
    line = [*words, *LOCAL, f"model={folders[kind]}", "temperature=1.5", f"out={tmp_path}/out"]
    batches = []
    monkeypatch.setattr("generate.generate", lambda *given: batches.append(1) or generate(*given))
    rows, raw = run(line), (tmp_path / "out/raw.jsonl").read_bytes()
    before, ends = finals(tmp_path / "out"), [i + 1 for i, b in enumerate(raw) if b == 10]
    for size, left in ((0, 3), (ends[4] - 3, 2), (ends[8], 1), (ends[9], 0)):
        (tmp_path / "out/raw.jsonl").write_bytes(raw[:size])
        batches.clear()
        assert run(line) == rows and finals(tmp_path / "out") == before and len(batches) == left
    others = run([*line[:-1], "seed=3", f"out={tmp_path}/other"])
    assert [row["text"] for row in others] != [row["text"] for row in rows]


def test_the_same_prompt_is_not_answered_alike(words, folders, tmp_path):
    """Two prompts in five batches: with the random numbers of the first batch again and again there were four
    answers."""
    line = [*words, *LOCAL, f"model={folders['plain']}", "temperature=1.5", "batch=2", "kinds=['sample']"]
    (tmp_path / "seeds.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text": " "}\n{"text": "a "}\n')  # two texts
    rows = run([*line, f"out={tmp_path}/out"])
    assert len({row["text"] for row in rows}) > 4 >= len(set(planned([*line, "out=x"]).values()))


# ---------------------------------------------------------------------- what is refused

@pytest.mark.parametrize("more, said", [
    ([], "model must be set where endpoint is not"), (["model=a", "endpoint=http://a", "name=b"], "model must be"),
    (["endpoint=http://a"], "name must be"),
    (["model=a", "name=b"], "name must be"), (["endpoint=ftp://a", "name=b"], "endpoint must be http"),
    (["model=a", "kinds=[]"], "kinds must be of explanation"),
    (["model=a", "kinds=['poem']"], "kinds must be of explanation, story, sample"),
    (["model=a", "n=0"], "n must be above 0"),
    (["model=a", "threads=0"], "threads"),
    (["model=a", "timeout=0"], "timeout"), (["model=a", "batch=-1"], "batch"), (["model=a", "max_new=0"], "max_new"),
    (["model=a", "novelty=0.0"], "novelty"),
    (["model=a", "novelty=1.5"], "novelty"), (["model=a", "banned=['...']"], "banned must be phrases"),
    (["model=a", "langid=None", "language=Swahili"], "langid must be set"),
    (["model=a", "kind=story"], "no setting named 'kind'"), (["model=a", "n=many"], "n must be int"),
    (["model=a", "keywords_each=8"], "keywords: a prompt takes 8, there are 7"),
    (["model=a", "shots=5"], "seeds: a prompt takes 5, there are 4"),
    (["model=a", "seeds=None"], "seeds: a prompt takes 3, there are 0"),
    (["model=a", "personas=None"], "personas: a prompt takes 1, there are 0"), (["model=/nowhere"], "/nowhere"),
    (["model=a", "keywords=a.csv"], "a.csv: unknown format"),
])
def test_bad_settings(words, tmp_path, more, said):
    with pytest.raises(ValueError, match=said):
        recipe.main([*words, f"out={tmp_path}/out", *more])
    assert not (tmp_path / "out/account.json").exists()


@pytest.mark.parametrize("key, sent", [(" sk-a\n", "Bearer sk-a"), ("sk-\nb", "Bearer sk-b"), ("", None), (None, None)])
@pytest.mark.parametrize("end", ["", "/", "/chat/completions"])
def test_the_address_and_the_key(words, serve, tmp_path, monkeypatch, key, sent, end):
    monkeypatch.delenv("API_KEY_127_0_0_1") if key is None else monkeypatch.setenv("API_KEY_127_0_0_1", key)
    url, seen = serve(lambda number, body: reply(answer(body["messages"][0]["content"])))
    recipe.main([*words, *told(url + end, body={"max_tokens": None, "top_p": 0.5}), f"out={tmp_path}/out", "n=4"])
    assert {path for path, _, _ in seen} == {"/v1/chat/completions"}
    assert {headers.get("Authorization") for _, headers, _ in seen} == {sent}
    assert all(set(body) == {"model", "messages", "temperature", "top_p"} for _, _, body in seen)


def test_progress(words, endpoint, tmp_path, monkeypatch, capsys):
    """By a clock that jumps: the rate, and the time left."""
    now = iter(range(0, 10 ** 6, 4))
    monkeypatch.setattr(recipe.time, "monotonic", lambda: next(now))
    recipe.main([*words, *told(endpoint[0], threads=1, timeout=1e9), f"out={tmp_path}/out", "n=6"])
    lines = [line for line in capsys.readouterr().out.splitlines() if " a second, " in line]
    assert len(lines) > 1
    assert all(re.fullmatch(r"\d of 6 answers, 0\.\d\d a second, \d+ s left", line) for line in lines)
    assert lines[-1].startswith("6 of 6") and lines[-1].endswith(" 0 s left")


def test_a_language_by_its_name(words, serve, tmp_path):
    url, seen = serve(lambda number, body: reply(answer(body["messages"][0]["content"])))
    recipe.main([*words, *told(url), f"out={tmp_path}/out", "language=Swahili"])
    assert all(body["messages"][0]["content"].endswith("Write in Swahili.") for _, _, body in seen)


@pytest.mark.parametrize("content, said",
                         [(b'{"text": "a"}\n{"q": "b"}\n', r"seeds.jsonl: line 2: .*\['q'\]"),
                          (b"[1]\n", "line 1: no text"),
                          (b'["question", "answer"]\n', "line 1"), (b"{\n", "line 1: not JSON"),
                          (b"\xff\n", "line 1: not UTF-8")])
def test_bad_seeds_are_named(words, tmp_path, content, said):
    (tmp_path / "seeds.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        recipe.main([*words, "model=a", f"out={tmp_path}/out"])


def test_lists_that_are_not_there_or_not_text(words, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        recipe.main([*words, "model=a", f"out={tmp_path}/out", f"keywords={tmp_path}/nowhere.txt"])
    (tmp_path / "kw.txt").write_bytes("сөз\n".encode() + b"\xff\xfe\n")
    with pytest.raises(ValueError, match="kw.txt: line 2: not UTF-8"):
        recipe.main([*words, "model=a", f"out={tmp_path}/out"])
