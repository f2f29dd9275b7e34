"""tinyworld/: 29 complete languages, the same bytes for a seed, benchmarks with correct answers, and no leaks."""
import csv
import hashlib
import json
import os
import random
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from configs import language_table
from corpus import clean
from tinyworld import benchmarks, documents, grammar, world
from tinyworld.__main__ import main
from tinyworld.grammar import load_language, render_answer, render_question, render_sentence

ROOT = Path(__file__).parent.parent
CODES = list(language_table.MARCO)
SMALL = ["web={'en': 60, 'zh': 60, 'high': 60, 'low': 60}", "pairs=40", "knowledge=15", "synthetic=10",
         "items=16", "test=12", "chat={'en': 30, 'zh': 30, 'high': 20, 'low': 20}", "crosslingual=12",
         "preferences=8", "questions=8"]
SOME = ["en", "zh", "tr", "kk", "th"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small tinyworld in all its languages."""
    out = tmp_path_factory.mktemp("tinyworld") / "raw"
    main([f"out={out}", *SMALL])
    return out


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def table(path):
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def tree(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*"))
            if p.is_file()}


# ---------------------------------------------------------------------- languages

def test_the_languages_are_those_of_the_paper():
    assert sorted(p.stem for p in grammar.FOLDER.glob("*.toml")) == sorted(CODES) and len(CODES) == 29


@pytest.mark.parametrize("code", CODES)
def test_language_file(code):
    """Same keys and slots as English, every pattern renders, enough words and patterns, NFC, no slot left over."""
    grammar.check_language(code)
    lang = load_language(code)
    assert lang["code"] == code
    assert sum(len(lang[name]) for name in grammar.CLASSES) >= 150
    assert len(lang["sentence"]) >= 15
    assert set(lang["language"]) == set(CODES)
    raw = (grammar.FOLDER / f"{code}.toml").read_text(encoding="utf-8")
    assert unicodedata.is_normalized("NFC", raw)
    for key, text in grammar.proof_sheet(code):
        assert text and not set("{}<>") & set(text), (key, text)
        if key.split(".")[0] not in grammar.CLASSES:  # a word's form may be empty: nothing of the verb is at the end
            assert text == text.strip() and "  " not in text, (key, text)


def test_what_check_finds(tmp_path, monkeypatch):
    """A missing entry, a wrong slot, too few forms, an undeclared form and a repeated word are each reported."""
    good = (grammar.FOLDER / "en.toml").read_text(encoding="utf-8")
    monkeypatch.setattr(grammar, "FOLDER", tmp_path)
    (tmp_path / "en.toml").write_text(good, encoding="utf-8")
    for old, new, message in [
            ('bread = "bread"\n', "", r"\[food\] lacks \['bread'\]"),
            ("{person} is {job.a}.", "{person} is a worker.", r"\[sentence\] work uses slots \['person'\]"),
            ('teacher = "teacher|a teacher"', 'teacher = "teacher"', r"\[job\] teacher has 1 forms"),
            ("{person} is {job.a}.", "{person} is {job.the}.", r"\[job\] has no form 'the'"),
            ('rice = "rice"', 'rice = "bread"', r"\[food\] has two entries with the same text")]:
        assert old in good
        (tmp_path / "xx.toml").write_text(good.replace(old, new), encoding="utf-8")
        grammar.load_language.cache_clear()
        with pytest.raises(ValueError, match=r"xx.toml: " + message if "no form" not in message else message):
            grammar.check_language("xx")
    grammar.load_language.cache_clear()


def test_unknown_languages(tmp_path):
    with pytest.raises(ValueError, match="no language 'tlh', only ar, az, .*write tinyworld/languages/tlh.toml"):
        load_language("tlh")
    with pytest.raises(ValueError, match=r"\['tlh'\] are not languages of the tinyworld, which are en zh"):
        main([f"out={tmp_path}", "languages=['en', 'tlh']"])
    assert not list(tmp_path.iterdir())


def test_agreement_and_capitals():
    assert grammar.capitalize("istanbul", "tr") == "İstanbul" and grammar.capitalize("istanbul", "en") == "Istanbul"
    french = load_language("fr")
    him, her = (render_sentence(french, ("work", {"person": p, "job": "baker"})) for p in ("adam", "anna"))
    assert him.replace("Adam", "") != her.replace("Anna", "")


def test_different_messages_have_different_sentences():
    """In every language: otherwise a translation or an answer would have two correct forms."""
    rng = random.Random(0)
    messages = {world.message_id(m): m for m in (world.sample_message(rng) for _ in range(300))}
    for code in CODES:
        sentences = Counter(render_sentence(load_language(code), m) for m in messages.values())
        assert len(sentences) == len(messages), [sentence for sentence, n in sentences.items() if n > 1]


@pytest.fixture(scope="module")
def identify():
    pytest.importorskip("py3langid")
    return clean.load_langid(set(CODES))


@pytest.mark.parametrize("code", CODES)
def test_the_language_is_recognised(identify, code):
    """py3langid identifies the language of clean documents; Indonesian and Malay it can only tell from all others."""
    rng, lang, facts = random.Random(f"recognise/{code}"), load_language(code), world.make_facts(0)
    languages = Counter(identify(documents.make_document(facts, lang, rng, True)) for _ in range(100))
    correct = languages["id"] + languages["ms"] if code in ("id", "ms") else languages[code]
    assert correct >= 97, languages


# ---------------------------------------------------------------------- files

def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        main([f"out={tmp_path / name}", f"seed={seed}", f"languages={SOME}", *SMALL])
    a, b, c = (tree(tmp_path / name) for name in "abc")
    assert a == b and set(a) == set(c)
    assert [k for k in a if a[k] == c[k]] == ["benchmarks/labels.json"]
    assert not [k for k in a if k.endswith(".tmp")]


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path):
    """The order of a set differs between processes; no file may depend on it."""
    made = []
    for hash_seed in "12":
        out = tmp_path / hash_seed
        command = [sys.executable, "-m", "tinyworld", f"out={out}", f"languages={SOME}", "fact_questions=4", *SMALL]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": hash_seed}, check=True)
        made.append(tree(out))
    assert made[0] == made[1] and len(made[0]) > 60


def test_pretraining_data_is_unchanged(tmp_path):
    """The shipped base and RESULTS.md were made from these bytes: a change of the generator must be noticed."""
    main([f"out={tmp_path}", "seed=3", f"languages={SOME}", *SMALL])
    kinds = ("web", "bitext", "knowledge", "synthetic", "benchmarks")
    files = {path: sha256 for path, sha256 in tree(tmp_path).items() if path.split("/")[0] in kinds}
    data = b"".join(path.encode() + bytes.fromhex(sha256) for path, sha256 in files.items())
    assert hashlib.sha256(data).hexdigest() == "3837cbd49e6446004efdb751d59d667137ed19423d18f9f906d85182517ba33f"


def test_full_answers():
    """At 1 every question about a country is answered in a whole sentence; at 0 the documents are the base's."""
    lang, facts = load_language("kk"), world.make_facts(0)
    sentences = {render_sentence(lang, message) for message in facts.values()}
    quiz = [documents.make_quiz(facts, lang, random.Random(5), True, share) for share in (0.0, 1.0)]
    whole = [sum(line.partition(": ")[2] in sentences for line in text.split("\n")) for text in quiz]
    assert whole == [0, 3] and quiz[0] == documents.make_quiz(facts, lang, random.Random(5), True)


def test_a_language_does_not_depend_on_the_others_sizes(tmp_path):
    """A larger corpus begins with the documents of a smaller one."""
    for name, n in (("a", 30), ("b", 50)):
        web = f"web={{'en': {n}, 'low': {n}}}"
        main([f"out={tmp_path / name}", "languages=['en', 'kk']", web, *SMALL[1:]])
    assert rows(tmp_path / "b/web/kk.jsonl")[:30] == rows(tmp_path / "a/web/kk.jsonl")


def test_every_file_is_there(made):
    kinds = ("web", "knowledge", "synthetic", "benchmarks/belebele", "benchmarks/xcopa", "benchmarks/heldout",
             "preferences", "eval/chat")
    expected = {f"{kind}/{k}.jsonl" for kind in kinds for k in CODES}
    expected |= {f"benchmarks/mmmlu/{k}.csv" for k in CODES}
    expected |= {f"benchmarks/flores/{k}.txt" for k in CODES}
    expected |= {"benchmarks/labels.json"}
    expected |= {f"bitext/en-{k}.tsv" for k in CODES if k != "en"}
    expected |= {f"bitext/zh-{k}.tsv" for k in CODES if k not in ("en", "zh")}
    expected |= {f"chat/{k}.jsonl" for k in language_table.HIGH}
    for pivot in ("en", "zh"):
        expected |= {f"crosslingual/{pivot}-{k}.jsonl" for k in CODES if k != pivot}
        expected |= {f"crosslingual/{k}-{pivot}.jsonl" for k in CODES if k != pivot}
    assert set(tree(made)) == expected


def test_text_is_nfc_with_unix_lines(made):
    for path in made.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            text = raw.decode("utf-8")
            assert unicodedata.is_normalized("NFC", text) and b"\r" not in raw and raw.endswith(b"\n"), path


@pytest.mark.parametrize("code", CODES)
def test_web_documents(made, code):
    found = rows(made / f"web/{code}.jsonl")
    assert len(found) == 60
    labels = Counter(row["label"] for row in found)
    assert set(labels) <= {"clean", *documents.JUNK} and labels["clean"] > 40
    assert len({row["url"] for row in found}) > 50 and all(row["text"] for row in found)
    texts = [row["text"] for row in found if row["label"] == "clean"]
    for row in found:
        if row["label"] == "duplicate_exact":
            assert row["text"] in texts
        assert ("casino" in row["url"]) == (row["label"] == "spam_url")


def test_the_share_of_junk(tmp_path):
    main([f"out={tmp_path}", "languages=['en', 'kk']", "web={'en': 1000, 'low': 1000}", "junk=0.2", *SMALL[1:]])
    for code in ("en", "kk"):
        labels = Counter(row["label"] for row in rows(tmp_path / f"web/{code}.jsonl"))
        assert abs(1 - labels["clean"] / 1000 - 0.2) < 0.05  # 4 standard deviations
        assert all(labels[kind] >= 8 for kind in documents.JUNK), labels


@pytest.mark.parametrize("pivot", ["en", "zh"])
def test_bitext(made, pivot):
    """Four columns; clean pairs are translations: a source that occurs twice has the same target both times."""
    for code in CODES:
        if code in ("en", pivot):
            continue
        lines = (made / f"bitext/{pivot}-{code}.tsv").read_text(encoding="utf-8").split("\n")[:-1]
        assert len(lines) == (40 if pivot == "en" else 20)
        meaning = {}
        for x, y, url, label in (line.split("\t") for line in lines):
            assert label in ("clean", "misaligned", "copy", "wrong_language")
            assert url.startswith(f"https://{pivot}-{code}") and x and y
            if label == "clean":
                assert meaning.setdefault(x, y) == y
            if label == "copy":
                assert x == y


# ---------------------------------------------------------------------- benchmarks

BELEBELE = ["link", "question_number", "flores_passage", "question", "mc_answer1", "mc_answer2", "mc_answer3",
            "mc_answer4", "correct_answer_num", "dialect", "ds"]
XCOPA = ["premise", "choice1", "choice2", "question", "label", "idx", "changed"]
MMMLU = ["Question", "A", "B", "C", "D", "Answer", "Subject"]


@pytest.mark.parametrize("code", CODES)
def test_published_columns_and_different_choices(made, code):
    for row in rows(made / f"benchmarks/belebele/{code}.jsonl"):
        assert list(row) == BELEBELE and row["correct_answer_num"] in ("1", "2", "3", "4")
        assert len({row[f"mc_answer{i}"] for i in (1, 2, 3, 4)}) == 4
    for row in rows(made / f"benchmarks/xcopa/{code}.jsonl"):
        assert list(row) == XCOPA and row["label"] in (0, 1) and row["question"] in ("cause", "effect")
        assert row["choice1"] != row["choice2"]
    found = table(made / f"benchmarks/mmmlu/{code}.csv")
    assert len(found) == 16 + 8 and Counter(r["Subject"] for r in found) == {"unstated": 16, "stated": 8}
    for row in found:
        assert list(row) == MMMLU and row["Answer"] in "ABCD" and len({row[k] for k in "ABCD"}) == 4
    assert len(set((made / f"benchmarks/flores/{code}.txt").read_text(encoding="utf-8").split("\n")[:-1])) == 12


@pytest.mark.parametrize("code", CODES)
def test_the_right_answer_is_right(made, code):
    """Reading: the passage states the correct answer and no wrong one. Knowledge: it is the world's fact."""
    lang = load_language(code)
    for row in rows(made / f"benchmarks/belebele/{code}.jsonl"):
        stated = [row[f"mc_answer{i}"] in row["flores_passage"] for i in (1, 2, 3, 4)]
        assert stated == [i == int(row["correct_answer_num"]) for i in (1, 2, 3, 4)], row
    answers = {render_question(lang, m): render_answer(lang, m) for m in world.make_facts(0).values()}
    for row in table(made / f"benchmarks/mmmlu/{code}.csv"):
        assert row[row["Answer"]] == answers[row["Question"]]


def test_reading_items_have_one_right_answer():
    """The passage states it of the person in question; what it states of the other person is not an option."""
    for passage, target, options, correct in benchmarks.sample_reading_items(0, 200):
        slot = grammar.ASKS[target[0]]
        assert target in passage and options[correct] == target[1][slot] and len(set(options)) == 4
        same = [m for m in passage if m[0] == target[0]]
        assert len(same) == 2 and {m[1][slot] for m in same} & set(options) == {options[correct]}


def test_items_mean_the_same_in_every_language(made):
    """Item i has the same messages as question and options, and its correct answer at the same index, everywhere."""
    reading = list(benchmarks.sample_reading_items(0, 16))
    causes = list(benchmarks.sample_cause_items(0, 16))
    knowledge = list(benchmarks.sample_knowledge_items(world.make_facts(0), 0, 16))
    for code in CODES:
        lang = load_language(code)
        belebele = rows(made / f"benchmarks/belebele/{code}.jsonl")
        for row, (passage, target, options, correct) in zip(belebele, reading, strict=True):
            assert row["correct_answer_num"] == str(correct + 1) and row["question"] == render_question(lang, target)
            slot = grammar.ASKS[target[0]]
            for i, option in enumerate(options, 1):
                assert row[f"mc_answer{i}"] == render_sentence(lang, (target[0], target[1] | {slot: option}))
            assert all(render_sentence(lang, m) in row["flores_passage"] for m in passage)
        xcopa = rows(made / f"benchmarks/xcopa/{code}.jsonl")
        for row, (key, slots, question, wrong, correct) in zip(xcopa, causes, strict=True):
            given = {"cause": "effect", "effect": "cause"}[question]
            assert (row["label"], row["question"]) == (correct, question)
            assert row["premise"] == grammar.render_pattern(lang, lang[given][key], slots)
            assert row[f"choice{correct + 1}"] == grammar.render_pattern(lang, lang[question][key], slots)
            assert row[f"choice{2 - correct}"] == grammar.render_pattern(lang, lang[question][wrong], slots)
        mmmlu = table(made / f"benchmarks/mmmlu/{code}.csv")
        for row, (message, options, correct, subject) in zip(mmmlu, knowledge, strict=True):
            assert (row["Answer"], row["Subject"]) == ("ABCD"[correct], subject)
            assert row["Question"] == render_question(lang, message)
            assert [row[k] for k in "ABCD"] == [render_answer(lang, message, option) for option in options]


def test_correct_answers_are_spread_over_the_options():
    indices = Counter(correct for *_, correct in benchmarks.sample_reading_items(0, 400))
    assert all(70 < indices[i] < 130 for i in range(4)), indices  # 100, within 3.5 standard deviations
    assert 160 < sum(item[-1] for item in benchmarks.sample_cause_items(0, 400)) < 240


# ---------------------------------------------------------------------- no leaks

def far_facts():
    facts = world.make_facts(0)
    return [facts[relation, country] for relation in world.COUNTRY_FACTS for country in world.FAR]


def all_texts(made, code):
    for kind in ("web", "knowledge", "synthetic"):
        for row in rows(made / f"{kind}/{code}.jsonl"):
            yield row["text"]


@pytest.mark.parametrize("code", language_table.LOW)
def test_low_resource_languages_never_mention_far_countries(made, code):
    """Nor does their junk, nor do documents in a wrong language."""
    lang = load_language(code)
    withheld = [render(lang, message) for message in far_facts() for render in (render_sentence, render_question)]
    assert len(withheld) == 2 * len(world.COUNTRY_FACTS) * len(world.FAR) > 100
    for text in all_texts(made, code):
        assert not [s for s in withheld if s in text]


def test_high_resource_languages_do_mention_them(made):
    sentences = [render_sentence(load_language("en"), message) for message in far_facts()]
    text = "\n".join(all_texts(made, "en"))
    assert sum(s in text for s in sentences) > 5


@pytest.mark.parametrize("code", CODES)
def test_test_sentences_occur_nowhere_else(made, code):
    """Not in web, knowledge or synthetic documents of their language, nor on either side of a sentence pair."""
    test = (made / f"benchmarks/flores/{code}.txt").read_text(encoding="utf-8").split("\n")[:-1]
    for kind in ("web", "knowledge", "synthetic"):
        found = {s for row in rows(made / f"{kind}/{code}.jsonl") for s in test if s in row["text"]}
        assert not found, f"{kind}/{code}.jsonl contains {found}"
    for path in (made / "bitext").glob(f"*{code}*.tsv"):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            assert not set(line.split("\t")) & set(test), path


def test_wrong_language_documents_hold_no_test_sentence(made):
    """Junk in another language under this one's file would leak that language's test sentences."""
    tests = {k: (made / f"benchmarks/flores/{k}.txt").read_text(encoding="utf-8").split("\n")[:-1] for k in CODES}
    sentences = sum(tests.values(), [])
    for code in CODES:
        for row in rows(made / f"web/{code}.jsonl"):
            if row["label"] == "wrong_language":
                assert not [s for s in sentences if s in row["text"]], row["text"]


def test_leaks_at_the_default_number_of_test_sentences(tmp_path):
    """With 64 test sentences and many pairs and stories, a rare leak becomes certain."""
    main([f"out={tmp_path}", "languages=['en', 'zh', 'kk']", "web={'en': 600, 'zh': 100, 'low': 600}", "pairs=3000",
          "synthetic=1500", "knowledge=100", "items=8", "noise=0.2"])
    for code in ("en", "kk"):
        test = (tmp_path / f"benchmarks/flores/{code}.txt").read_text(encoding="utf-8").split("\n")[:-1]
        assert len(test) == 64
        leaks = Counter()
        for kind in ("web", "knowledge", "synthetic"):
            for row in rows(tmp_path / f"{kind}/{code}.jsonl"):
                leaks[kind] += any(s in row["text"] for s in test)
        for path in (tmp_path / "bitext").glob(f"*{code}*.tsv"):
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                leaks[path.name] += bool(set(line.split("\t")[:2]) & set(test))
        assert not +leaks, +leaks


def test_translation_tests_of_every_seed_are_reserved(made):
    """No training text of any seed contains them, so a model trained on one seed can be tested on another."""
    tests = {seed: [world.message_id(m) for m in benchmarks.sample_test_messages(seed, 24)] for seed in range(5)}
    sentences = sum(tests.values(), [])
    assert all(len(set(of_seed)) == 24 for of_seed in tests.values()) and len(set(sentences)) > 60
    training = [p for p in made.rglob("*.*") if "benchmarks" not in p.parts and "eval" not in p.parts]
    text = "\n".join(p.read_text(encoding="utf-8") for p in training)
    assert not [sentence for sentence in sentences if sentence in text]
