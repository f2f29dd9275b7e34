"""tinyworld/: 29 whole languages, the same bytes for a seed, benchmarks with right answers, and nothing held out that leaks."""
import csv
import hashlib
import json
import random
import unicodedata
from collections import Counter

import pytest

from configs import language_table
from corpus import clean
from tinyworld import __main__ as tinyworld
from tinyworld import grammar
from tinyworld import world as w

CODES = list(language_table.MARCO)
SMALL = ["web={'en': 60, 'zh': 60, 'high': 60, 'low': 60}", "pairs=40", "knowledge=15", "synthetic=10", "items=16", "test=12",
         "chat={'en': 30, 'zh': 30, 'high': 20, 'low': 20}", "crosslingual=12", "preferences=8", "questions=8"]
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
    lang = grammar.load_language(code)
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
    """A missing entry, another slot, an entry with too few forms and a form that is not declared each have their message."""
    good = (grammar.FOLDER / "en.toml").read_text(encoding="utf-8")
    monkeypatch.setattr(grammar, "FOLDER", tmp_path)
    (tmp_path / "en.toml").write_text(good, encoding="utf-8")
    for change, message in [(('bread = "bread"\n', ""), r"\[food\] lacks \['bread'\]"),
                            (("{person} is {job.a}.", "{person} is a worker."), r"\[sentence\] work uses slots \['person'\]"),
                            (('teacher = "teacher|a teacher"', 'teacher = "teacher"'), r"\[job\] teacher has 1 forms"),
                            (("{person} is {job.a}.", "{person} is {job.the}."), r"\[job\] has no form 'the'"),
                            (('rice = "rice"', 'rice = "bread"'), r"\[food\] says two entries alike")]:
        assert change[0] in good
        (tmp_path / "xx.toml").write_text(good.replace(*change), encoding="utf-8")
        grammar.load_language.cache_clear()
        with pytest.raises(ValueError, match=r"xx.toml: " + message if "no form" not in message else message):
            grammar.check_language("xx")
    grammar.load_language.cache_clear()


def test_unknown_languages(tmp_path):
    with pytest.raises(ValueError, match="does not speak 'tlh'; it speaks ar, az, .*add tlh.toml"):
        grammar.load_language("tlh")
    with pytest.raises(ValueError, match=r"\['tlh'\] are not among the 29: en zh"):
        main([f"out={tmp_path}", "languages=['en', 'tlh']"])
    assert not list(tmp_path.iterdir())


def test_agreement_and_capitals():
    assert grammar.capitalize("istanbul", "tr") == "İstanbul" and grammar.capitalize("istanbul", "en") == "Istanbul"
    french = grammar.load_language("fr")
    him, her = (grammar.render_sentence(french, ("work", {"person": p, "job": "baker"})) for p in ("adam", "anna"))
    assert him.replace("Adam", "") != her.replace("Anna", "")


def test_different_messages_are_said_differently():
    """In every language, else a translation or an answer would have two right forms."""
    rng = random.Random(0)
    messages = {world.message_id(m): m for m in (world.sample_message(rng) for _ in range(300))}
    for code in CODES:
        said = [grammar.render_sentence(grammar.load_language(code), m) for m in messages.values()]
        assert len(set(said)) == len(said), [k for k, n in Counter(said).items() if n > 1]


@pytest.fixture(scope="module")
def identify():
    pytest.importorskip("py3langid")
    return clean.load_langid(set(CODES))


@pytest.mark.parametrize("code", CODES)
def test_the_language_is_recognised(identify, code):
    """py3langid names the language of clean documents; Indonesian and Malay it can only tell from all others."""
    rng, lang, world = random.Random(f"recognise/{code}"), grammar.load_language(code), world.make_facts(0)
    got = Counter(identify(documents.make_document(facts, lang, r, True)) for _ in range(100))
    right = got["id"] + got["ms"] if code in ("id", "ms") else got[code]
    assert right >= 97, got


# ---------------------------------------------------------------------- files

def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        main([f"out={tmp_path / name}", f"seed={seed}", f"languages={SOME}", *SMALL])
    a, b, c = (tree(tmp_path / name) for name in "abc")
    assert a == b and set(a) == set(c)
    assert [k for k in a if a[k] == c[k]] == ["benchmarks/labels.json"]
    assert not [k for k in a if k.endswith(".tmp")]


def test_text_of_the_pretraining_stages_is_what_it_was(tmp_path):
    """The shipped base and RESULTS.md were made from these bytes: a change of the generator must be seen."""
    main([f"out={tmp_path}", "seed=3", f"languages={SOME}", *SMALL])
    old = {k: v for k, v in tree(tmp_path).items() if k.split("/")[0] in ("web", "bitext", "knowledge", "synthetic", "benchmarks")}
    digest = hashlib.sha256(b"".join(k.encode() + bytes.fromhex(v) for k, v in old.items())).hexdigest()
    assert digest == "3837cbd49e6446004efdb751d59d667137ed19423d18f9f906d85182517ba33f"


def test_a_language_does_not_depend_on_the_others_sizes(tmp_path):
    """More documents are the same documents and some more."""
    for name, n in (("a", 30), ("b", 50)):
        main([f"out={tmp_path / name}", "languages=['en', 'kk']", f"web={{'en': {n}, 'low': {n}}}", *SMALL[1:]])
    assert rows(tmp_path / "b/web/kk.jsonl")[:30] == rows(tmp_path / "a/web/kk.jsonl")


def test_every_file_is_there(made):
    expected = {f"{kind}/{k}.jsonl" for kind in ("web", "knowledge", "synthetic", "benchmarks/belebele", "benchmarks/xcopa", "benchmarks/heldout")
                for k in CODES}
    expected |= {f"benchmarks/mmmlu/{k}.csv" for k in CODES} | {f"benchmarks/flores/{k}.txt" for k in CODES} | {"benchmarks/labels.json"}
    expected |= {f"bitext/en-{k}.tsv" for k in CODES if k != "en"} | {f"bitext/zh-{k}.tsv" for k in CODES
        if k not in ("en", "zh")}
    expected |= {f"{kind}/{k}.jsonl" for kind in ("preferences", "eval/chat") for k in CODES} | {f"chat/{k}.jsonl" for k in language_table.HIGH}
    expected |= {f"crosslingual/{a}-{b}.jsonl" for hub in ("en", "zh") for k in CODES for a, b in ((hub, k), (k, hub)) if k != hub}
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
    """Four columns; clean pairs say the same: their source line fixes the target wherever the source comes twice."""
    for code in CODES:
        if code in ("en", pivot):
            continue
        lines = (made / f"bitext/{pivot}-{code}.tsv").read_text(encoding="utf-8").split("\n")[:-1]
        assert len(lines) == (40 if pivot == "en" else 20)
        meaning = {}
        for x, y, url, label in (line.split("\t") for line in lines):
            assert label in ("clean", "misaligned", "copy",
                             "wrong_language") and url.startswith(f"https://{pivot}-{code}") and x and y
            if label == "clean":
                assert meaning.setdefault(x, y) == y
            if label == "copy":
                assert x == y


# ---------------------------------------------------------------------- benchmarks

BELEBELE = ["link", "question_number", "flores_passage", "question", "mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4",
            "correct_answer_num",
            "dialect", "ds"]
XCOPA = ["premise", "choice1", "choice2", "question", "label", "idx", "changed"]
MMMLU = ["Question", "A", "B", "C", "D", "Answer", "Subject"]


@pytest.mark.parametrize("code", CODES)
def test_published_columns_and_different_choices(made, code):
    for row in rows(made / f"benchmarks/belebele/{code}.jsonl"):
        assert list(row) == BELEBELE and row["correct_answer_num"] in ("1", "2", "3", "4")
        assert len({row[f"mc_answer{i}"] for i in (1, 2, 3, 4)}) == 4
    for row in rows(made / f"benchmarks/xcopa/{code}.jsonl"):
        assert list(row) == XCOPA and row["label"] in (0, 1) and row["question"] in ("cause",
            "effect") and row["choice1"] != row["choice2"]
    found = table(made / f"benchmarks/mmmlu/{code}.csv")
    assert len(found) == 16 + 8 and Counter(r["Subject"] for r in found) == {"unstated": 16, "stated": 8}
    for row in found:
        assert list(row) == MMMLU and row["Answer"] in "ABCD" and len({row[k] for k in "ABCD"}) == 4
    assert len(set((made / f"benchmarks/flores/{code}.txt").read_text(encoding="utf-8").split("\n")[:-1])) == 12


@pytest.mark.parametrize("code", CODES)
def test_the_right_answer_is_right(made, code):
    """Reading: the passage says the right answer and none of the wrong ones. Knowledge: it is the world's fact."""
    lang, world = grammar.load_language(code), world.make_facts(0)
    for row in rows(made / f"benchmarks/belebele/{code}.jsonl"):
        said = [row[f"mc_answer{i}"] in row["flores_passage"] for i in (1, 2, 3, 4)]
        assert said == [i == int(row["correct_answer_num"]) for i in (1, 2, 3, 4)], row
    facts = {grammar.render_question(lang, (f, slots)): grammar.render_answer(lang, (f, slots)) for (f, _), slots in world.facts.items()}
    for row in table(made / f"benchmarks/mmmlu/{code}.csv"):
        assert row[row["Answer"]] == facts[row["Question"]]


def test_reading_items_have_one_right_answer():
    """The passage says it of the person asked about; what it says of the other person is not among the choices."""
    for told, asked, options, right in benchmarks.sample_reading_items(0, 200):
        slot = grammar.ASKS[asked[0]]
        assert asked in told and options[right] == asked[1][slot] and len(set(options)) == 4
        same = [m for m in told if m[0] == asked[0]]
        assert len(same) == 2 and {m[1][slot] for m in same} & set(options) == {options[right]}


def test_items_mean_the_same_in_every_language(made):
    """Item i has its right answer in the same place, and question and choices say the same messages, in all languages."""
    world = world.make_facts(0)
    reading, causes, facts = list(benchmarks.sample_reading_items(0, 16)), list(benchmarks.sample_cause_items(0, 16)), list(benchmarks.sample_knowledge_items(facts, 0, 16))
    for code in CODES:
        lang = grammar.load_language(code)
        for row, (told, asked, options, right) in zip(rows(made / f"benchmarks/belebele/{code}.jsonl"), reading, strict=True):
            assert row["correct_answer_num"] == str(right + 1) and row["question"] == grammar.render_question(lang, asked)
            assert [row[f"mc_answer{i + 1}"] for i in range(4)] == [grammar.render_sentence(lang, (asked[0],
                asked[1] | {grammar.ASKS[asked[0]]: o})) for o in options]
            assert all(grammar.render_sentence(lang, m) in row["flores_passage"] for m in told)
        for row, (key, slots, question, wrong, right) in zip(rows(made / f"benchmarks/xcopa/{code}.jsonl"), causes, strict=True):
            given = {"cause": "effect", "effect": "cause"}[question]
            assert (row["label"], row["question"]) == (right, question) and row["premise"] == grammar.render_pattern(lang,
                lang[given][key], slots)
            assert row[f"choice{right + 1}"] == grammar.render_pattern(lang, lang[question][key], slots)
            assert row[f"choice{2 - right}"] == grammar.render_pattern(lang, lang[question][wrong], slots)
        for row, (message, options, right, subject) in zip(table(made / f"benchmarks/mmmlu/{code}.csv"), facts, strict=True):
            assert (row["Answer"], row["Subject"]) == ("ABCD"[right], subject) and row["Question"] == grammar.render_question(lang, message)
            assert [row[k] for k in "ABCD"] == [grammar.render_answer(lang, message, o) for o in options]


def test_answers_are_spread_over_the_places():
    places = Counter(right for *_, right in benchmarks.sample_reading_items(0, 400))
    assert all(70 < places[i] < 130 for i in range(4)), places  # 100, within 3.5 standard deviations
    assert 160 < sum(item[-1] for item in benchmarks.sample_cause_items(0, 400)) < 240


# ---------------------------------------------------------------------- nothing leaks

def all_texts(made, code):
    for kind in ("web", "knowledge", "synthetic"):
        for row in rows(made / f"{kind}/{code}.jsonl"):
            yield row["text"]


@pytest.mark.parametrize("code", language_table.LOW)
def test_low_resource_languages_never_speak_of_far_countries(made, code):
    """Also not inside junk, nor in documents of other languages under wrong labels."""
    lang, world = grammar.load_language(code), world.make_facts(0)
    secret = [say(lang, facts[f, c]) for f in world.COUNTRY_FACTS for c in world.FAR for say in (grammar.render_sentence, grammar.render_question)]
    assert len(secret) == 2 * len(world.COUNTRY_FACTS) * len(world.FAR) > 100
    for text in all_texts(made, code):
        assert not [s for s in secret if s in text]


def test_high_resource_languages_do_speak_of_them(made):
    world, lang = world.make_facts(0), grammar.load_language("en")
    secret = [grammar.render_sentence(lang, facts[f, c]) for f in world.COUNTRY_FACTS for c in world.FAR]
    text = "\n".join(all_texts(made, "en"))
    assert sum(s in text for s in secret) > 5


@pytest.mark.parametrize("code", CODES)
def test_test_sentences_stand_nowhere_else(made, code):
    """A test sentence occurs in no web document, knowledge or synthetic text of its language, and on neither side of any pair."""
    test = (made / f"benchmarks/flores/{code}.txt").read_text(encoding="utf-8").split("\n")[:-1]
    for kind in ("web", "knowledge", "synthetic"):
        found = {s for row in rows(made / f"{kind}/{code}.jsonl") for s in test if s in row["text"]}
        assert not found, f"{kind}/{code}.jsonl says {found}"
    for path in (made / "bitext").glob(f"*{code}*.tsv"):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            assert not set(line.split("\t")) & set(test), path


def test_wrong_language_documents_hold_no_test_sentence(made):
    """Junk in another language under this one's file would leak that language's test sentences."""
    tests = {k: (made / f"benchmarks/flores/{k}.txt").read_text(encoding="utf-8").split("\n")[:-1] for k in CODES}
    sentences = [s for some in tests.values() for s in some]
    for code in CODES:
        for row in rows(made / f"web/{code}.jsonl"):
            if row["label"] == "wrong_language":
                assert not [s for s in sentences if s in row["text"]], row["text"]


def test_leaks_at_the_default_number_of_test_sentences(tmp_path):
    """At 64 test sentences and many pairs and stories a leak that is rare becomes certain."""
    main([f"out={tmp_path}", "languages=['en', 'zh', 'kk']", "web={'en': 600, 'zh': 100, 'low': 600}", "pairs=3000",
                    "synthetic=1500",
                    "knowledge=100", "items=8", "noise=0.2"])
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
    """Their sentences stand in no document, pair or instruction of any seed, so a base that read one seed can be tested with another."""
    tests = {seed: [world.message_id(m) for m in benchmarks.sample_test_messages(seed, 24)] for seed in range(5)}
    assert all(len(set(said)) == 24 for said in tests.values()) and len({*sum(tests.values(), [])}) > 60
    text = "\n".join(p.read_text(encoding="utf-8") for p in made.rglob("*.*") if "benchmarks" not in p.parts and "eval" not in p.parts)
    assert not [said for said in sum(tests.values(), []) if said in text]
