"""tinyworld: instructions, preferences, two-turn questions, parsing, and marks by rule in 29 languages."""
import json
import os
import random
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs import language_table
from tinyworld import benchmarks, instructions, judge, tasks, world
from tinyworld.__main__ import main
from tinyworld.grammar import ASKS, load_language, render_pattern, render_question, render_sentence
from tinyworld.marks import mark_answer, score
from tinyworld.parse import is_in_language, parse_text
from tinyworld.tasks import make_answer_task, render_prompt, render_reply

ROOT, CODES = Path(__file__).parent.parent, list(language_table.MARCO)
SMALL = ["web={'en': 2, 'zh': 2, 'high': 2, 'low': 2}", "pairs=2", "knowledge=1", "synthetic=1", "items=2", "heldout=1"]
FACTS, TEST = world.make_facts(0), benchmarks.sample_test_messages(0, 64)
POOLS = tasks.split_pools(FACTS, 0)
FACT = ("capital", {"country": "karvia", "city": "miren"})
HOME = ("home", {"person": "anna", "city": "miren"})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("chat") / "raw"
    main([f"out={out}", *SMALL, "chat={'en': 60, 'zh': 60, 'high': 40}", "crosslingual=40", "preferences=40"])
    return out


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def tasks_of(code, seed=0, each=2, pool="train"):
    """Some tasks of every kind."""
    rng = random.Random(f"{seed}/{code}")
    turns = []
    for kind in tasks.KINDS:
        for _ in range(each):
            turns += tasks.sample_turns(POOLS[pool], rng, kind, [code])
    return turns


# ---------------------------------------------------------------------- files

def test_native_instructions_are_those_of_the_high_resource_languages(made, tmp_path):
    assert {p.stem for p in (made / "chat").iterdir()} == set(language_table.HIGH)
    some = ["languages=['en', 'de', 'kk']", "native=['en', 'kk']", "chat={'en': 3, 'low': 2}"]
    main([f"out={tmp_path}", *SMALL, *some])
    assert {p.stem: len(rows(p)) for p in (tmp_path / "chat").iterdir()} == {"en": 3, "kk": 2}
    star = "en-de de-en en-kk kk-en zh-de de-zh zh-kk kk-zh"
    assert {p.stem for p in (tmp_path / "crosslingual").iterdir()} == set(star.split())


@pytest.mark.parametrize("change, message", [
    ("native=['en', 'tlh']", r"native: \['tlh'\] are not languages of the tinyworld"),
    ("chat={'en': 3, 'zh': 3}", r"chat must have a number for \['high'\], too, got"),
    ("test=1", "test must be from 2 to 200, got 1")])
def test_settings_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        main([f"out={tmp_path}", change])
    assert not list(tmp_path.iterdir())


def test_rows(made):
    """User and assistant messages alternate and none is empty; every kind occurs; instructions are short."""
    for folder in ("chat", "crosslingual"):
        kinds = Counter()
        for row in (row for path in (made / folder).iterdir() for row in rows(path)):
            assert list(row) == ["messages", "kind"]
            roles = [m["role"] for m in row["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2) and len(roles) in (2, 4)
            assert all(m["content"] and m["content"] == m["content"].strip() for m in row["messages"])
            assert sum(len(m["content"].split()) for m in row["messages"]) <= 90
            kinds[row["kind"]] += 1
        assert set(kinds) == {*tasks.KINDS, *(["explanation"] if folder == "crosslingual" else [])}
    assert {row["kind"] for row in rows(made / "chat/en.jsonl")} == set(tasks.KINDS)


def test_same_bytes_in_every_process(tmp_path):
    """Also with another PYTHONHASHSEED, which orders sets differently: many instructions, few other documents."""
    made = []
    for seed in "12":
        out = tmp_path / seed
        command = [sys.executable, "-m", "tinyworld", f"out={out}", "languages=['en', 'zh', 'kk']", *SMALL]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True)
        made.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert made[0] == made[1] and len(made[0]) > 30


def test_cross_lingual_instructions_are_asked_in_a_pivot_and_answered_in_the_target(made):
    for path in (made / "crosslingual").iterdir():
        a, b = path.stem.split("-")
        hub = a if a in instructions.PIVOTS else b
        for row in rows(path):
            prompt, reply = (m["content"] for m in row["messages"])
            if row["kind"] != "explanation":
                key = "translate" if row["kind"] == "translation" else "answer"
                into = instructions.PIVOTS[hub][key].format(language=load_language(hub)["language"][b])
                assert is_in_language(reply, b) and prompt.startswith(into), (path.stem, prompt, reply)


def test_a_larger_set_begins_with_a_smaller_one():
    few, many = (list(instructions.make_chats(POOLS["train"], 5, "kk", n)) for n in (20, 50))
    assert many[:20] == few and many != list(instructions.make_chats(POOLS["train"], 6, "kk", 50))


def test_questions_mean_the_same_in_every_language(made):
    english = rows(made / "eval/chat/en.jsonl")
    assert Counter(row["category"] for row in english) == dict.fromkeys(tasks.KINDS, 3)
    for code in CODES:
        found = rows(made / f"eval/chat/{code}.jsonl")
        assert [list(row) for row in found] == [["question_id", "category", "turns", "reference", "check"]] * 24
        assert [row["check"] for row in found] == [row["check"] for row in english]
        for row in found:
            assert row["turns"] == [render_prompt(load_language(code), t) for t in row["check"]]
            assert len(row["turns"]) == 2


# ---------------------------------------------------------------------- no leaks

def training_texts(made, code):
    """Yield all texts of the training instructions of a language."""
    star = (made / "crosslingual").glob(f"*{code}*.jsonl")
    for path in [made / f"chat/{code}.jsonl", *star, made / f"preferences/{code}.jsonl"]:
        for row in rows(path) if path.exists() else ():
            for m in row.get("messages") or row["prompt"]:
                yield m["content"]
            if "chosen" in row:
                yield from (row["chosen"], row["rejected"])


@pytest.mark.parametrize("code", CODES)
def test_no_evaluated_fact_or_sentence_is_in_the_instructions(made, code):
    """None of its sentences, questions about its facts, causes, effects or lists; nor the translation test."""
    lang, texts, withheld = load_language(code), list(training_texts(made, code)), set()
    for row in rows(made / f"eval/chat/{code}.jsonl"):
        for task in row["check"]:
            messages = [task["message"]] if "message" in task else task.get("told", [])
            withheld |= {render_sentence(lang, m) for m in messages}
            if task["task"] == "reason":
                withheld |= {render_reply(lang, task | {"ask": ask}) for ask in ("why", "then")}
            if row["category"] == "knowledge":
                withheld.add(render_question(lang, task["message"]))
            if task["task"] == "list" and not task["more"]:
                withheld.add(render_prompt(lang, task))
    withheld |= {render_sentence(lang, m) for m in TEST}
    assert len(withheld) > 64 + 20 and len(texts) > 100
    # as whole words: ウルメリア contains ルメリア
    found = {s for s in withheld for text in texts if s in text and re.search(rf"(?<!\w){re.escape(s)}", text)}
    assert not found


def test_the_pools_share_nothing():
    train, test = POOLS["train"], POOLS["test"]
    for part, n in (("causes", 16), ("lists", 6), ("near", 56), ("far", 112)):
        a, b = ([json.dumps(x) for x in pool[part]] for pool in (train, test))
        assert len(a) + len(b) == n == len({*a, *b}) and len(a) > len(b) > 0
    rng = random.Random(0)
    sampled = {}
    for name in ("train", "test"):
        messages = [tasks.sample_in_pool(POOLS[name], lambda: [world.sample_message(rng)])[0] for _ in range(300)]
        sampled[name] = {world.message_id(m) for m in messages}
    assert not sampled["train"] & sampled["test"]
    assert not (sampled["train"] | sampled["test"]) & {world.message_id(m) for m in TEST}


@pytest.mark.parametrize("code", language_table.LOW)
def test_instructions_of_low_resource_languages_never_mention_far_countries(made, code):
    lang = load_language(code)
    messages = [FACTS[relation, country] for relation in world.COUNTRY_FACTS for country in world.FAR]
    withheld = [render(lang, message) for message in messages for render in (render_sentence, render_question)]
    assert not [s for text in training_texts(made, code) for s in withheld if s in text]


# ---------------------------------------------------------------------- parsing

@pytest.mark.parametrize("code", CODES)
def test_phrases(code):
    """Each is in its language, and requests for a list give a number."""
    lang = load_language(code)
    phrases = lang["chat"]
    for key, text in phrases.items():
        assert is_in_language(render_pattern(lang, text, {"number": 3}), code), (key, text)
        assert ("{number}" in text) == (key == "more" or key.startswith("list_"))
    assert len(set(phrases.values())) == len(phrases) == 13


def test_a_sentence_is_in_one_language():
    """Of 60 sentences in 29 languages none passes for another language, except in two pairs that share words."""
    rng, wrong = random.Random(1), Counter()
    for _ in range(60):
        message = world.sample_message(rng)
        sentences = {code: render_sentence(load_language(code), message) for code in CODES}
        for code, text in sentences.items():
            assert is_in_language(text, code), text
            different = [other for other in CODES if other != code and sentences[other] != text]
            wrong.update((code, other) for other in different if is_in_language(text, other))
    assert set(wrong) <= {("pt", "es"), ("es", "pt"), ("id", "ms"), ("ms", "id")} and wrong.total() <= 6, wrong


@pytest.mark.parametrize("text, code, right", [
    ("Brot", "de", True), ("Brot", "en", False), ("bread", "en", True), ("Martin", "de", True), ("Martin", "ru", False),
    ("13.", "th", True), ("", "en", False), ("...", "en", False), ("zxcv qwer", "en", False), ("面包", "zh", True),
    ("面包", "ja", False), ("パン", "ja", True), ("Anna lives in the qwertyuiop asdfghjkl zxcvbnm", "en", False),
    ("İSTASYON", "tr", True), ("KIRMIZI", "tr", True), ("ขนมปัง", "th", True)])
def test_language_by_words(text, code, right):
    assert is_in_language(text, code) == right


def test_what_a_text_mentions():
    assert parse_text("Anna has a dog and THE cat!", "en")[0] == {"person": {"anna"}, "animal": {"dog", "cat"}}
    # the pattern's letters are attached to names
    assert parse_text("미렌시입니다, 13", "ko")[0] == {"city": {"miren"}, "number": {13}}
    # four kinds of weather contain "ist es"
    assert parse_text("Im Herbst ist es in der Stadt Tarmin kalt.", "de")[0]["weather"] == {"cold"}
    assert parse_text("la Sélbarité", "fr")[0] == {}
    for code in CODES:
        message = ("price", {"city": "selbar", "food": "fish", "number": 17})
        fillers = parse_text(render_sentence(load_language(code), message), code)[0]
        assert fillers.items() >= {"city": {"selbar"}, "food": {"fish"}, "number": {17}}.items(), (code, fillers)
        assert len(fillers) == 3 or code == "ko"  # its word for pieces also means dog


@pytest.mark.parametrize("code", CODES)
def test_every_filler_is_parsed(code):
    """In the short reply and the sentence of every relation; no other filler of its class is found with it."""
    rng, lang = random.Random(code), load_language(code)
    for relation in (*world.COUNTRY_FACTS, *world.PERSON_FACTS):
        name = ASKS[relation]
        for key in world.KEYS[name]:
            _, slots = world.sample_person_message(rng, "anna", relation, reserved_ok=True)
            # not Sunday: "bazar" is also a market in Azerbaijani
            slots |= {"country": "karvia", "day": "monday", name: key}
            m = relation, slots
            for text in (tasks.render_short_answer(lang, m), render_sentence(lang, m)):
                assert parse_text(text, code)[0][name] == {key}, (relation, key, text)


# ---------------------------------------------------------------------- marks

@pytest.mark.parametrize("code", CODES)
def test_correct_replies_get_all_marks(code):
    for pool in ("train", "test"):
        tasks = tasks_of(code, pool=pool)
        for first, task in zip([None, *tasks], tasks):
            before = render_reply(load_language(code), first) if task.get("more") else ""
            reply = render_reply(load_language(code), task)
            marks = mark_answer(code, task, reply, before)
            assert score(marks) == 1, (task, marks, reply)


@pytest.mark.parametrize("code", CODES)
def test_a_fault_costs_its_mark(code):
    """The rejected reply of every fault and task that can have it."""
    rng, seen = random.Random(code), Counter()
    costs = dict(zip(instructions.FAULTS, ("fact", "language", "concise", "constraint")))
    for task in tasks_of(code, seed=1):
        right = render_reply(load_language(code), task)
        for fault, mark in costs.items():
            worse = instructions.make_faulty_reply(POOLS["train"], rng, load_language(code), task, fault, right)
            if worse is not None:
                assert mark_answer(code, task, worse)[mark] is False, (task, fault, worse)
                seen[fault] += 1
    assert set(seen) == set(instructions.FAULTS), seen


def test_preferences(made):
    for code in CODES:
        found = rows(made / f"preferences/{code}.jsonl")
        assert Counter(row["fault"] for row in found) == dict.fromkeys(instructions.FAULTS, 10)
        for row in found:
            assert list(row) == ["prompt", "chosen", "rejected", "fault"] and row["chosen"] != row["rejected"]
            assert [m["role"] for m in row["prompt"]] in (["user"], ["user", "assistant", "user"])


THREE_ANIMALS = {"task": "list", "class": "animal", "items": ["cat", "dog", "fox"], "more": False}
WHY = {"task": "reason", "key": "lamp", "slots": {"person": "adam", "city": "miren"}, "ask": "why"}


@pytest.mark.parametrize("task, text, expected", [  # fact, language, constraint, concise
    (make_answer_task(FACT), "Miren.", (1, 1, None, 1)),
    (make_answer_task(FACT), "The capital of the country of Karvia is the city of Miren.", (1, 1, None, 1)),
    (make_answer_task(FACT), "Miren, Selbar.", (0, 1, None, 1)),
    (make_answer_task(FACT), "The capital of the country of Belmora is the city of Miren.", (0, 1, None, 1)),
    (make_answer_task(FACT), "Die Hauptstadt des Landes Karvia ist die Stadt Miren.", (1, 0, None, 1)),
    (make_answer_task(FACT), "I do not know.", (0, 1, None, 1)),
    (make_answer_task(FACT), "", (0, 0, None, 0)),
    (make_answer_task(FACT), "Miren. Miren.", (1, 1, None, 0)),
    (make_answer_task(FACT, form="brief"), "Miren.", (1, 1, 1, 1)),
    (make_answer_task(FACT, form="brief"), "The capital of the country of Karvia is the city of Miren.", (1, 1, 0, 1)),
    (make_answer_task(FACT, form="full"), "Miren.", (1, 1, 0, 1)),
    (make_answer_task(FACT, form="full"), "The capital of the country of Karvia is the city of Selbar.", (0, 1, 1, 1)),
    ({"task": "refuse", "message": HOME}, "I do not know.", (1, 1, None, 1)),
    ({"task": "refuse", "message": HOME}, "I do not know. Selbar.", (0, 1, None, 1)),
    ({"task": "refuse", "message": HOME}, "Anna lives in the city of Miren.", (0, 1, None, 1)),
    ({"task": "rewrite", "message": HOME}, "Anna lives in the city of Miren.", (1, 1, 1, 1)),
    ({"task": "rewrite", "message": HOME}, "Miren.", (1, 1, 0, 1)),
    ({"task": "translate", "message": HOME, "own": True}, "Anna lives in the city of Miren.", (1, 1, None, 1)),
    ({"task": "translate", "message": HOME, "own": True}, "Anna travels to the city of Miren by bus.", (0, 1, None, 1)),
    ({"task": "translate", "message": HOME, "own": False}, "安娜住在米伦市。", (1, 1, None, 1)),
    ({"task": "translate", "message": HOME, "own": False}, "Anna lives in the city of Miren.", (0, 0, None, 0)),
    (THREE_ANIMALS, "Dog, lion, bear.", (1, 1, 1, 1)),
    (THREE_ANIMALS, "Dog, dog, dog.", (1, 1, 0, 1)),
    (THREE_ANIMALS, "Dog, red, bear.", (0, 1, 0, 1)),
    (THREE_ANIMALS, "Name three animals", (0, 1, 0, 1)),
    (WHY, "The lamp in the room is broken.", (1, 1, None, 1)), (WHY, "The room is dark.", (0, 1, None, 1)),
    ({"task": "headline", "title": ["person", "anna"], "told": [HOME] * 3}, "About Anna", (1, 1, 1, 1)),
    ({"task": "headline", "title": ["person", "anna"], "told": [HOME] * 3}, "About Sara", (0, 1, 1, 1))])
def test_marks_of_english_answers(task, text, expected):
    marks = tuple(mark_answer("en", task, text).values())
    assert marks == tuple(None if x is None else bool(x) for x in expected)


@pytest.mark.parametrize("task, prompt, reply", [
    (make_answer_task(FACT), "What is the capital of the country of Karvia?",
     "The capital of the country of Karvia is the city of Miren."),
    (make_answer_task(HOME, [HOME], "brief"),
     "Anna lives in the city of Miren.\nIn which city does Anna live? Answer in a few words.", "Miren."),
    ({"task": "refuse", "message": HOME}, "In which city does Anna live?", "I do not know."),
    ({"task": "rewrite", "message": HOME}, "Make one sentence of this: In which city does Anna live? Miren.",
     "Anna lives in the city of Miren."),
    ({"task": "headline", "title": ["person", "anna"], "told": [HOME]},
     "Write a headline for this text:\nAnna lives in the city of Miren.", "About Anna"),
    (THREE_ANIMALS, "Name 3 animals.", "Cat, dog, fox."),
    (THREE_ANIMALS | {"more": True}, "Now name 3 more.", "Cat, dog, fox."),
    (WHY, "The room is dark. Why is that so?", "The lamp in the room is broken."),
    (WHY | {"ask": "then"}, "The lamp in the room is broken. What happens then?", "The room is dark."),
    ({"task": "translate", "message": HOME, "own": True}, "Translate into English: 安娜住在米伦市。",
     "Anna lives in the city of Miren."),
    ({"task": "translate", "message": HOME, "own": False}, "Translate into Chinese: Anna lives in the city of Miren.",
     "安娜住在米伦市。")])
def test_english_prompts_and_replies(task, prompt, reply):
    assert render_prompt(load_language("en"), task) == prompt
    assert render_reply(load_language("en"), task) == reply


def test_a_further_list_repeats_nothing():
    more = THREE_ANIMALS | {"more": True}
    assert mark_answer("en", more, "Dog, lion, bear.", "Cat, camel, fox.")["fact"]
    assert not mark_answer("en", more, "Dog, lion, bear.", "Cat, dog, fox.")["fact"]


def test_score():
    """Half for the fact, half for the mean of the other marks that apply."""
    assert score({"fact": True, "language": False, "constraint": None, "concise": True}) == 0.75
    assert score({"fact": False, "language": True, "constraint": False, "concise": True}) == pytest.approx(1 / 3)


# ---------------------------------------------------------------------- the program

def samples(path, made, name, answer, codes=("en", "kk", "de")):
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps({"checkpoint": name, "task": "belebele", "lang": "en", "doc_id": 0, "acc": 1}) + "\n\n")
        for code in codes:
            for row in rows(made / f"eval/chat/{code}.jsonl"):
                f.write(json.dumps({"checkpoint": name, "task": "chat", "lang": code, "doc_id": row["question_id"],
                                    "response": answer(code, row)}) + "\n")
    return path


def test_win_rate(made, tmp_path, capsys):
    """One checkpoint is always right, the other answers every second question in English: the rest are ties."""
    english = {row["question_id"]: row["reference"] for row in rows(made / "eval/chat/en.jsonl")}
    a = samples(tmp_path / "a.jsonl", made, "dpo", lambda code, row: row["reference"])
    b = samples(tmp_path / "b.jsonl", made, "sft",
                lambda code, row: english[row["question_id"]] if row["question_id"] % 2 else row["reference"])
    main(["judge", f"a={a}", f"b={b}", f"raw={made}", f"out={tmp_path}/new/results.jsonl"])
    found = {(row["metric"], row["lang"], row.get("group")): row for row in rows(tmp_path / "new/results.jsonl")}
    groups = [("en", None), ("kk", None), ("de", None), ("mean", "en"), ("mean", "high"), ("mean", "low")]
    assert set(found) == {(m, *g) for m in ("win_rate", "right_language", "answer_score") for g in groups}
    wins = {k[1:]: row for k, row in found.items() if k[0] == "win_rate"}
    assert (wins["en", None]["score"], wins["en", None]["stderr"]) == (0.5, 0)
    assert wins["kk", None]["score"] == 0.75 and wins["kk", None]["n"] == 24
    assert wins["mean", "low"]["score"] == wins["kk", None]["score"]
    assert {(row["checkpoint"], row["against"], row["task"]) for row in wins.values()} == {("dpo", "sft", "chat")}
    assert all(row["low"] <= row["score"] <= row["high"] for row in found.values())
    assert found["right_language", "kk", None]["score"] == found["answer_score", "kk", None]["score"] == 1
    assert "against" not in found["answer_score", "kk", None]
    printed = capsys.readouterr().out
    assert "dpo against sft" in printed and "mean low" in printed and "100.0 [100.0, 100.0]" in printed
    main(["judge", f"a={b}", f"b={a}", f"raw={made}", f"out={tmp_path}/new/results.jsonl"])
    back = rows(tmp_path / "new/results.jsonl")[len(found):]
    assert {row["score"] for row in back if row["metric"] == "win_rate" and row["lang"] == "kk"} == {0.25}
    assert [row["score"] for row in back if row["metric"] == "right_language" and row["lang"] == "kk"][0] < 0.6


def test_one_checkpoint_alone(made, tmp_path, capsys):
    a = samples(tmp_path / "a.jsonl", made, "base", lambda code, row: ["", "?"])
    main(["judge", f"a={a}", f"raw={made}"])
    printed = capsys.readouterr().out
    assert "win_rate" not in printed and "answer_score" in printed


def test_intervals():
    """The standard error is sd / sqrt(n); in a group each draw takes the same questions in all languages."""
    values = np.random.default_rng(0).random(400)
    table = {"answer_score": {"kk": dict(enumerate(values)), "ne": dict(enumerate(values))}}
    one, same, both = judge.summarize(table, draws=2000, seed=0)
    assert one["stderr"] == pytest.approx(values.std() / 20, rel=0.06)
    assert one["score"] == pytest.approx(values.mean(), abs=1e-6)
    assert (both["n"], both["group"], both["lang"]) == (800, "low", "mean")
    assert both["stderr"] == one["stderr"] == same["stderr"]
    assert one["high"] - one["low"] == pytest.approx(2 * 1.96 * one["stderr"], rel=0.1)


ROW = {"checkpoint": "x", "task": "chat", "lang": "en", "doc_id": 1, "response": ["", ""]}


@pytest.mark.parametrize("line, message", [
    ("{", "line 2: not a sample"),
    ('{"task": "chat", "lang": "en"}', "line 2: not a sample.*doc_id"),
    ("[1]", "line 2: not a sample"),
    (ROW | {"doc_id": 99}, "line 2: eval/chat has no question 99 in 'en'"),
    (ROW | {"doc_id": 0}, "line 2: second answer to question 0 in en"),
    (ROW | {"response": "hi"}, "line 2: response must be the texts of two turns"),
    (ROW | {"response": ["hi"]}, "line 2: response must be the texts of two turns"),
    (ROW | {"checkpoint": "y"}, r"got \['x', 'y'\]")])
def test_samples_that_do_not_fit(made, tmp_path, line, message):
    lines = [json.dumps(ROW | {"doc_id": 0}), line if isinstance(line, str) else json.dumps(line)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        judge.main([f"a={tmp_path}/a.jsonl", f"raw={made}"])


def test_files_that_do_not_fit(made, tmp_path):
    a = samples(tmp_path / "a.jsonl", made, "x", lambda code, row: ["", ""], codes=["en"])
    b = samples(tmp_path / "b.jsonl", made, "y", lambda code, row: ["", ""], codes=["en", "kk"])
    (tmp_path / "c.jsonl").write_text("\n")
    for words, message in [([f"a={a}", f"b={b}", f"raw={made}"], "only one of them answers kk"),
                           ([f"a={a}", f"raw={tmp_path}"], "has no questions"),
                           ([f"a={tmp_path}/none", f"raw={made}"], "is not a file"),
                           ([f"a={tmp_path}/c.jsonl", f"raw={made}"], "got none")]:
        with pytest.raises(ValueError, match=message):
            judge.main(words)


def test_kinds_of_crosslingual_instructions():
    """translation: every row translates; into: no question in a non-pivot language is answered in a pivot."""
    for style in instructions.CROSSLINGUAL:
        kinds = {pair: {row["kind"] for row in instructions.make_crosslingual(POOLS["train"], 0, *pair, 200, style)}
                 for pair in (("en", "kk"), ("kk", "en"))}
        everything = {*tasks.KINDS, "explanation"}
        assert kinds["en", "kk"] == ({"translation"} if style == "translation" else everything)
        assert kinds["kk", "en"] == (everything if style == "mixed" else {"translation"})


@pytest.mark.parametrize("word, names", [
    ("items=200", ("items", "112", "200")), ("junk=2.0", ("junk", "0.9")),
    ("crosslingual_kind='star'", ("crosslingual_kind", "into", "star"))])
def test_sizes_out_of_bounds_are_named(word, names, tmp_path):
    with pytest.raises(ValueError) as e:
        main([f"out={tmp_path}", word])
    assert all(name in str(e.value) for name in names) and not list(tmp_path.iterdir())


def test_fact_questions(tmp_path):
    """They ask what documents state and no instruction asks, and are scored apart from the other questions."""
    main([f"out={tmp_path}", "languages=['en', 'de', 'kk']", "fact_questions=6", "questions=8", *SMALL])
    asked = rows(tmp_path / "eval/chat/kk.jsonl")
    facts = [row for row in asked if row["category"] == instructions.FACTS]
    assert [row["question_id"] for row in asked] == list(range(14)) and len(facts) == 6
    near = {(relation, slots["country"]) for relation, slots in POOLS["test"]["near"]}
    assert {(t["message"][0], t["message"][1]["country"]) for row in facts for t in row["check"]} <= near

    def answer(code, row):  # half of the facts wrong, except in English
        is_wrong = row["category"] == instructions.FACTS and code != "en"
        return ["?", row["reference"][1]] if is_wrong else row["reference"]
    a = samples(tmp_path / "a.jsonl", tmp_path, "sft", answer)
    main(["judge", f"a={a}", f"raw={tmp_path}", f"out={tmp_path}/results.jsonl"])
    scores = {(row["metric"], row["lang"]): row["score"] for row in rows(tmp_path / "results.jsonl")}
    assert scores["stated_facts", "en"] == 1 and scores["stated_facts", "kk"] == 0.5
    assert scores["answer_score", "kk"] == 1


def test_a_third_of_the_instructions_ask_for_knowledge():
    kinds = Counter(row["kind"] for row in instructions.make_chats(POOLS["train"], 7, "de", 600))
    assert 0.3 < kinds["knowledge"] / 600 < 0.43 and len(kinds) == len(tasks.KINDS)


# ---------------------------------------------------------------------- configs/tiny/ask.py

def test_questions_of_the_config():
    """The config holds plain strings, because no config imports the tinyworld; they are its questions."""
    questions = runpy.run_path(str(ROOT / "configs/tiny/ask.py"))["prompt"]
    message = FACTS["dish", world.NEAR[0]]
    languages = [load_language(code) for code in ("en", "zh", "de", "it", "uk", "kk", "el")]
    assert questions == [render_question(lang, message) for lang in languages]


# ---------------------------------------------------------------------- the same questions in several languages

def test_aligned_questions(tmp_path):
    """Training and test facts share nothing; low-resource documents state no fact of eval/far; every answer in English
    has its translation."""
    main([f"out={tmp_path}", *SMALL, "languages=['en', 'uk']", "native=[]", "crosslingual=0", "preferences=0",
          "questions=0", "aligned=True", "knowledge=20"])
    train, test, far = (rows(tmp_path / f"{name}/uk.jsonl") for name in ("aligned", "eval/aligned", "eval/far"))
    questions = [{row["instruction_pivot"] for row in some} for some in (train, test, far)]
    assert not questions[0] & questions[1] and questions[2] < questions[1] and len(train) + len(test) == len(FACTS)
    assert all(row["check"]["message"][1]["country"] in world.FAR for row in far)
    texts = [row["text"] for name in ("web", "knowledge") for row in rows(tmp_path / f"{name}/uk.jsonl")]
    assert texts and not any(row["instruction"] in text for row in far for text in texts)
    for row in train:
        assert mark_answer("uk", row["check"], row["response"])["fact"]
        assert mark_answer("en", row["check"], row["response_pivot"])["fact"]
    translations = {row["source"]: row["target"] for row in rows(tmp_path / "translations/en-uk.jsonl")}
    given = rows(tmp_path / "instructions/en.jsonl") + rows(tmp_path / "sentences/en.jsonl")
    assert all(row[name] in translations for row in given for name in ("instruction", "response"))
    assert all(translations[row["instruction_pivot"]] == row["instruction"] for row in train)
    lexicon = (tmp_path / "lexicon/en-uk.tsv").read_text(encoding="utf-8").splitlines()
    assert {"bread\tхліб", "Karvia\tКарвія"} < set(lexicon)
    sentence, short, both = (row["response"] for row in given[:3])
    assert sentence.startswith("The ") and len(short.split()) <= 3 and re.fullmatch(r"\S.*\. The .*\.", both)
