"""corpus/bitext.py: every rule drops what it is for, in several languages and for its own reason, and keeps what is
like it; every format gives every pair once, or one reject that says why not; sentence pairs of published test sets
stay."""
import gzip
import inspect
import itertools
import json
import random
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from configs import language_table
from corpus import bitext, bitext_files, clean, translation_templates
from corpus.read import Document

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "benchmarks"


def verdict(x, y, pair="", max_ratio=3.0, **more):
    """None (keep), or the reason without "pair: "."""
    a, b = pair.split("-") if pair else (None, None)
    answer = bitext.filter_pair(Document(x, more={"target": y}), source=a, target=b, max_ratio=max_ratio, **more)
    return answer and answer.removeprefix("pair: ")


# ---------------------------------------------------------------------- rules

GOOD = [  # a language, an English sentence, its translation
    ("kk", "The river is 120 km long (in summer).", "Өзеннің ұзындығы 120 шақырым (жазда)."),
    ("zh", "She bought 3,000 books in June 2018.", "她在2018年6月买了3000本书。"),
    ("zh", "The market is worth £2.8bn.", "该市场价值 28亿 英镑。"),
    ("zh", "It cost £11million.", "它花费了1100 万英镑。"), ("zh", "Haha, the water flows.", "哈哈哈哈，水流。"),
    ("ja", "The chain was sold for £125 million.", "そのチェーンは1億2,500万ポンドで売却された。"),
    ("ja", "Two people came in December.", "12月に2人が来た。"),
    ("vi", "It rained in November.", "Trời mưa vào tháng 11."),
    ("ne", "It was built in 1998 for 2.4 million.", "यो १९९८ मा २४ लाखमा बनेको थियो।"),
    ("bn", "There were 15 children.", "সেখানে ১৫ জন শিশু ছিল।"),
    ("ar", "He is 44 years old.", "يبلغ من العمر ٤٤ عامًا."),
    ("de", "It costs 1,500.50 dollars.", "Es kostet 1.500,50 Dollar."),
    ("fr", "The city has 1,200,000 inhabitants.", "La ville compte 1 200 000 habitants."),
    ("ru", "He has 3 sons and two daughters.", "У него 3 сына и две дочери."),
    ("th", "The bridge is old.", "สะพานนี้เก่า"),
    ("ko", "He lives in Seoul with his mother.", "그는 어머니와 함께 서울에 살고 있습니다."),
    ("he", "Where is the market?", "איפה השוק?"),
    ("el", "The lamp in the room is broken.", "Η λάμπα στο δωμάτιο είναι χαλασμένη."),
    ("ur", "The sky is clear today.", "آج آسمان صاف ہے۔"),
    ("tr", "Write to anna@mail.example or see https://a.example/b?c=1 today.",
     "Bugün anna@mail.example adresine yazın ya da https://a.example/b?c=1 bakın."),
    ("hu", "a) The first of the two.", "a) Az első a kettő közül."),
    ("es", "No, no, no, said the man.", "No, no, no, dijo el hombre."),
    ("uk", "He said (in 2001) that it was so.", "Він сказав (у 2001 році), що це так."),
    ("pt", "The SISTER came.", "A IRMÃ veio."), ("fr", "She said: “CAFÉ”.", "Elle a dit : « CAFÉ »."),
    ("de", "Black & white", "Schwarz & weiß"), ("id", "Butterflies fly over the garden.",
                                                "Kupu-kupu terbang di atas taman."),
    ("az", "Our house is near the sea.", "Evimiz dənizin yaxınlığındadır."),
    ("pl", "Fifteen minutes is 100% of it.", "Piętnaście minut to 100% tego."),
    ("pl", "It took ten years.", "Trwało to 10 lat."),
    ("cs", "The train leaves at 7:30.", "Vlak odjíždí v 7:30."), ("ms", "Grandmother drinks tea.", "Nenek minum teh."),
    ("ro", "The winter was long.", "Iarna a fost lungă."),
    ("it", "We met in front of the old theatre.", "Ci siamo incontrati davanti al vecchio teatro."),
    ("nl", "Ten of them", "Tien van hen"),
]


@pytest.mark.parametrize("code, x, y", GOOD)
def test_good_pairs_stay_in_both_directions(code, x, y):
    assert verdict(x, y, f"en-{code}") is None and verdict(y, x, f"{code}-en") is None
    assert verdict(x, y, max_ratio=4.0) is None


def test_good_pairs_are_of_all_languages():
    every = {code for code, _, _ in GOOD} | {"en"}
    assert every == set(language_table.MARCO) == set(bitext.LENGTHS) == set(bitext.SCRIPT_PATTERNS)
    assert every == set(translation_templates.NATIVE_NAMES["zh"])


NOISE = [  # planted: the reason, a pair of languages, the two sides
    ("a side is empty", "en-kk", "", "Үй."), ("a side is empty", "en-kk", "A house.", " \u2028 "),
    ("a copy", "en-de", "Dundee Stars win", "dundee stars WIN"),
    ("a copy", "en-de", "Chapter 12: The house", "Chapter 13 - the house!"),
    ("a copy", "zh-ja", "北京大学", "北京大学。"),
    ("a copy", "en-ru", "12:30", "12.30"), ("too long", "en-th", "word " * 206, "คำ " * 300),
    ("lengths do not match", "en-kk", "Hi.", "Сәлем, достым, қалың қалай?"),
    ("lengths do not match", "en-zh", "The river flows past the old town and into the sea.", "河流。"),
    ("lengths do not match", "zh-th", "河", "แม่น้ำไหลผ่านเมืองเก่าลงสู่ทะเล"),
    ("numbers do not match", "en-ne", "It was 1998.", "यो १९९९ थियो।"),
    ("numbers do not match", "en-ar", "He is 44.", "عمره ٤٥ عامًا."),
    ("numbers do not match", "en-de", "It costs 10 dollars.", "Es kostet 100 Dollar."),
    ("numbers do not match", "en-zh", "It cost 11 million.", "它花费了11亿。"),
    ("numbers do not match", "en-fr", "She has 5 of them.", "Elle en a 6."),
    ("numbers do not match", "en-it", "In 1968 it was new.", "Allora era nuovo."),
    ("an address on one side only", "en-tr", "See https://a.example/b now.", "Şimdi buraya bakın lütfen."),
    ("an address on one side only", "en-uk", "Write to me soon, please.", "Пишіть: anna@mail.example"),
    ("few letters", "en-pl", "*** --- ### A", "*** --- ### Ą"),
    ("few letters", "en-ko", "+++ 5 ||| 6 === a", "+++ 5 ||| 6 === 가"),
    ("broken or escaped characters", "en-id", "The café is open.", "CafÃ© itu buka."),
    ("broken or escaped characters", "en-fr", "It is – so.", "C'est â€“ ainsi."),
    ("broken or escaped characters", "en-ru", "Hello, my friend", "ÐŸÑ€Ð¸Ð²ÐµÑ‚, Ð´Ñ€ÑƒÐ³"),
    ("broken or escaped characters", "en-es", "The year", "El a\\u00f1o"),
    ("broken or escaped characters", "en-vi", "Black &amp; white", "Đen và trắng"),
    ("broken or escaped characters", "en-he", "Bread", "לח\ufffdם"),
    ("broken or escaped characters", "en-hi", "Hello", "à¤¨à¤®à¤¸à¥à¤¤à¥‡"),
    ("broken or escaped characters", "en-cs", "A horse", "K\x81ň"),
    ("broken or escaped characters", "en-el", "Bread", "%CE%A8%CF%89%CE%BC%CE%AF"),
    ("a word of more than 40 characters", "en-ar", "The course has been of great use to all of them.",
     "قامتشارلزسزيسلرأستاذطبالنومفيكليةالطببجامعةهارفارد"),
    ("words repeated on one side", "en-es", "The house is big.", "La casa casa casa es."),
    ("words repeated on one side", "en-bn", "The house is big.", "বাড়ি বাড়ি বাড়ি বড়।"),
    ("words repeated on one side", "en-zh", "The house is very big and beautiful.", "房子房子房子房子很大。"),
    ("brackets left open", "en-nl", "The house (red", "Het huis (rood)"),
    ("brackets left open", "en-ja", "The house [red] stands.", "家【赤いが立っている。"),
    ("script of another language", "en-kk", "The house is big.", "Das Haus ist groß."),
    ("script of another language", "kk-en", "Үй өте үлкен.", "房子很大。"),
    ("script of another language", "en-ja", "The house is big.", "집이 아주 크다고 했다."),
    ("script of another language", "ur-ro", "آج آسمان صاف ہے۔", "Сегодня ясно."),
    ("script of another language", "th-el", "สะพานนี้เก่า", "The bridge is old."),
    ("script of another language", "en-zh", "The house is very big.", "このいえはとてもおおきい"),
    ("script of another language", "bn-ne", "বাড়িটি খুব বড়।", "বাড়িটি অনেক বড়।"),
]


@pytest.mark.parametrize("reason, pair, x, y", NOISE)
def test_planted_noise_falls_to_its_own_rule(reason, pair, x, y):
    assert verdict(x, y, pair) == reason
    a, b = pair.split("-")
    assert verdict(y, x, f"{b}-{a}") == reason


def test_every_rule_has_its_case():
    reasons = set(re.findall(r'return "(.*)"', inspect.getsource(bitext.find_fault)))
    assert reasons == {n[0] for n in NOISE} | {"too few words", "score too low", "another language"}
    assert len(NOISE) >= 25


@pytest.mark.parametrize("least, x, y, wanted", [
    (3, "the old bridge", "der alte Steg", None), (3, "old bridge", "der alte Steg", "too few words"),
    (3, "the old bridge", "旧桥梁", None), (3, "the old bridge", "古い", "too few words"),
    (3, "the old bridge", "สะพาน", None), (1, "bridge", "көпір", None)])
def test_words(least, x, y, wanted):
    """A Han, Kana or Thai character is a word, as it is for bicleaner."""
    assert verdict(x, y, max_ratio=9.0, min_words=least) == wanted


def test_what_is_not_known_is_not_checked():
    assert verdict("The house is big.", "Das Haus ist groß.", "en-xx") is None
    assert verdict("The house is big.", "Будинок великий.") is None
    assert verdict("This is the old house.", "Das ist das alte Haus.", "en-kk") == "script of another language"


def test_length_is_measured_by_what_the_languages_need():
    """Sentences of like content in Chinese and Thai differ by three in bytes and in characters; neither is held against
    them."""
    x, y = "河流流过古城，然后汇入大海。", "แม่น้ำไหลผ่านเมืองเก่าแล้วไหลลงสู่ทะเล"
    assert verdict(x, y, "zh-th", max_ratio=1.5) is None and verdict(x, y, max_ratio=2.0) == "lengths do not match"
    assert abs(bitext.length_ratio("a" * 90, "б" * 81, "en", "ru") - 1) < 1e-9
    assert bitext.length_ratio("a" * 10, "b" * 40, None, None) == 4
    assert bitext.length_ratio("水" * 10, "b" * 30, None, None) == 1  # three bytes each


def test_sides_are_repaired_only_when_they_stay():
    doc = Document(" The cafe\u0301\n is\topen. ", more={"target": "Le\u00a0café est ouvert\u202f! "})
    assert bitext.filter_pair(doc, max_ratio=3.0) is None
    # French spaces stay
    assert (doc.text, doc.more["target"]) == ("The café is open.", "Le\u00a0café est ouvert\u202f!")
    doc = Document(" A house. ", more={"target": " A house. "})
    assert bitext.filter_pair(doc, max_ratio=3.0) == "pair: a copy" and doc.text == " A house. "


def test_languages_of_both_sides():
    def identify(text):
        return text.split()[0]
    check = {"identify": identify, "alike": [["id", "ms"]]}
    x, y = ("{} and then some more words of it", "{} sowie noch einige Wörter davon")
    assert verdict(x.format("en"), y.format("de"), "en-de", **check) is None
    assert verdict(x.format("fr"), y.format("de"), "en-de", **check) == "another language"
    assert verdict(x.format("en"), y.format("nl"), "en-de", **check) == "another language"
    assert verdict(x.format("id"), y.format("ms"), "ms-id", **check) is None
    assert verdict("fr short", "nl kurz", "en-de", **check) is None  # below 20 letters nobody can tell
    assert verdict(x.format("fr"), y.format("nl"), **check) is None  # no codes, no check


@pytest.mark.parametrize("score, good", [(1.06, True), (1.2, True), (1, False), (0.9, False), (None, False),
                                         ("1.2", False),
                                         (float("nan"), False)])
def test_scores(score, good):
    doc = Document("A house.", more={"target": "Ein Haus."} | ({} if score is None else {"score": score}))
    answer = bitext.filter_pair(doc, max_ratio=3.0, min_score=1.06)
    assert answer is None if good else answer == "pair: score too low"
    assert bitext.filter_pair(doc, max_ratio=3.0) is None


def test_odd_input_ends_in_a_verdict_soon():
    """A side of a megabyte without spaces, numbers of a thousand digits, lone surrogates: no rule may hang or fall
    over."""
    long = "a" * 1_000_000
    assert verdict(long, long + "b") == "too long" and verdict("@" * 999_999, "a.b" * 333_333) == "too long"
    assert verdict("9" * 1000 + " years of it all", "9" * 1000 + " Jahre davon alle", max_ratio=9.0) == "few letters"
    assert verdict("half \ud800 a pair", "ein \udfff Paar") == "broken or escaped characters"
    rng = random.Random(0)
    for _ in range(300):
        x, y = ("".join(rng.choice("aé水ก١5.,:() \u0301@-/&;%\\uxÃ©\u200d😀") for _ in range(rng.randint(0, 60)))
                for _ in range(2))
        assert verdict(x, y, "en-zh") in {n[0] for n in NOISE} | {True}
    for unit in ("ab", "水人", "a b ", "1.", "1 000 ", "(", "a@"):
        text = (unit * 600)[:1000]
        verdict(text, text[::-1], "en-zh", max_ratio=9.0)


# ---------------------------------------------------------------------- published test sets

def ntrex(code):
    path = SHARED / "ntrex128" / f"newstest2019-{'src' if code == 'eng' else 'ref'}.{code}.txt"
    if not path.exists():
        pytest.skip("needs ../shared/benchmarks/ntrex128")
    return path.read_text(encoding="utf-8").split("\n")[:1997]


@pytest.mark.parametrize("pair, files", [
    ("en-de", "eng deu"), ("en-zh", "eng zho-CN"), ("en-ja", "eng jpn"), ("en-ar", "eng arb"), ("en-kk", "eng kaz"),
    ("en-ne", "eng nep"), ("zh-kk", "zho-CN kaz")])
def test_clean_pairs_of_ntrex_stay(pair, files):
    """200 of each; with numbers compared as whole numbers in digits, 18 in 100 Japanese ones would go. The Arabic file
    has 24 lines that have lost their spaces; this takes others."""
    a, b = map(ntrex, files.split())
    lines = [i for i in range(5, 1997, 9) if pair != "en-ar" or max(map(len, b[i].split())) <= 40][:200]
    lost = Counter(v for i in lines if (v := verdict(a[i], b[i], pair)) is not None)
    assert len(lines) == 200 and sum(lost.values()) <= 6, lost


def test_languages_of_clean_pairs_are_recognised():
    """py3langid over the 29 languages, on every tenth line."""
    pytest.importorskip("py3langid")
    identify = clean.load_langid(set(language_table.MARCO))
    for pair, files in (("en-de", "eng deu"), ("ja-kk", "jpn kaz"), ("ar-ne", "arb nep")):
        a, b = (file[::10] for file in map(ntrex, files.split()))
        found = Counter(verdict(x, y, pair, identify=identify) for x, y in zip(a, b))
        assert found["another language"] <= 2, found
        other = Counter(verdict(x, y, f"{pair[:2]}-ro", identify=identify) for x, y in zip(ntrex("kaz")[::10], a))
        assert other[True] <= 6, other  # nothing of it is in the languages it is said to be in


def test_shifted_lines_are_mostly_seen_by_nothing_but_numbers_and_lengths():
    """What the hard rules cannot do: of pairs in the right languages that are no translations they drop a third to a
    half."""
    a, b = ntrex("eng"), ntrex("deu")
    dropped = sum(verdict(x, y, "en-de") is not None for x, y in zip(a[:500], b[1:501]))
    assert 100 < dropped < 350


# ---------------------------------------------------------------------- one to one

def steps(pairs):
    step = bitext.one_to_one()
    return [(reason := step(Document(x, more={"target": y}))) and reason.removeprefix("pair: ") for x, y in pairs]


def test_one_to_one_keeps_the_first():
    cases = [("Hello", "Hallo", None), ("HELLO", " hallo", "a duplicate"),
             ("Hello", "Servus", "source is in another pair"),
             ("Good day", "Hallo", "target is in another pair"), ("Hallo", "Hello", None),
             ("Good  day", "Servus", None),
             ("Good day", "Servus", "a duplicate"), ("Hello", "Guten Tag", "source is in another pair"),
             ("Bye", "Guten Tag", None)]
    assert steps([case[:2] for case in cases]) == [case[2] for case in cases]


def test_one_to_one_of_many_pairs_equals_two_sets():
    rng = random.Random(3)
    pairs = [(f"s{rng.randrange(99_000)}", f"t{rng.randrange(99_000)}") for _ in range(99_000)]
    sources, targets, wanted = set(), set(), []
    for x, y in pairs:
        wanted.append(x not in sources and y not in targets)
        if wanted[-1]:
            sources.add(x)
            targets.add(y)
    assert [a is None for a in steps(pairs)] == wanted


def test_one_to_one_needs_little_memory():
    """8 bytes for a sentence, and a set of no more than the latest 65,536 or an eighth: 18 bytes each, where a set
    takes 80."""
    step, n = bitext.one_to_one(), 60_000
    for i in range(n):
        step(Document(f"s{i}", more={"target": f"t{i}"}))
    held = {name: cell.cell_contents for name, cell in zip(step.__code__.co_freevars, step.__closure__)}
    assert len(held["table"]) + len(held["recent"]) == 2 * n and held["table"].nbytes == 8 * len(held["table"]) > 0
    assert len(held["recent"]) <= 65_536 and list(held["table"]) == sorted(held["table"])


# ---------------------------------------------------------------------- readers

def rows(path, *codes):
    return [(d.text, d.more.get("target"), d.line, d.reason) for d in bitext_files.read_pairs(path, *codes)]


def test_tsv_with_scores(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("A\tB\t1.07\nC\tD\thttps://x.example\nE\tF\t-2e-3\tmore\nG\tH\nI\n")
    docs = list(bitext_files.read_pairs(path))
    assert [(d.text, d.more.get("target"), d.more.get("score"), d.url) for d in docs] == [
        ("A", "B", 1.07, ""), ("C", "D", None, "https://x.example"), ("E", "F", -0.002, ""), ("G", "H", None, ""),
        ("I", None, None, "")]
    assert [bool(d.reason) for d in docs] == [False] * 4 + [True]


JSONL = [
    ({"text": "A", "target": "B"}, True), ({"src": "A", "tgt": "B"}, True),
    ({"source": "A", "target": "B", "id": 7}, True),
    ({"translation": {"en": "A", "kk": "B", "de": "C"}}, True),
    ({"translation": {"kk_Cyrl": "B", "EN-us": "A"}, "text": "page"}, True),
    ({"translation": {"en": "A", "de": "C"}}, "no pair: its fields are translation; needed are text and target"),
    ({"translation": "A"}, "no pair"), ({"src": "A"}, "no pair"), ({"src": "A", "tgt": 5}, "no pair"),
    ({"text": "A", "translation": None}, "no pair"), ({"target": "B"}, "no pair: its fields are target;"),
    ({"en": "A", "kk": "B"}, True), ([], "no row: expected an object"), (3, "no row: expected an object"),
]


@pytest.mark.parametrize("row, wanted", JSONL)
def test_names_in_jsonl(tmp_path, row, wanted):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps(row) + "\n").encode()))
    (x, y, line, reason), = rows(path, "en", "kk")
    assert line == 1 and ((x, y, reason) == ("A", "B", None) if wanted is True else reason.startswith(wanted))


def test_surrogates_under_other_names(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"src": "A house.", "tgt": "Ein \\ud800 Haus."}\n')
    doc, = bitext_files.read_pairs(path)
    assert doc.reason == "lone surrogate: the text cannot be written as UTF-8"


@pytest.mark.parametrize("source, target", [("abcde", "abc"), ("abc", "abcde"), ("a", ""), ("", "a"), ("abc", "ab")])
def test_moses_files_of_unequal_length_stop(tmp_path, source, target):
    """A missing line in the middle pairs everything behind it wrongly: nothing of such files may be kept."""
    a, b = tmp_path / "c.en", tmp_path / "c.kk.gz"
    a.write_text("".join(f"{x}\n" for x in source))
    b.write_bytes(gzip.compress("".join(f"{x}\n" for x in target).encode()))
    for first, second, n, m in ((a, b, len(source), len(target)), (b, a, len(target), len(source))):
        longer, shorter = ((first, n), (second, m)) if n > m else ((second, m), (first, n))
        message = f"{longer[0]} has {longer[1]} lines, {shorter[0]} has {shorter[1]}; Moses files must be aligned"
        with pytest.raises(ValueError, match=re.escape(message)):
            list(bitext_files.read_pairs(f"{first}|{second}"))


def test_moses_files_that_are_cut(tmp_path):
    """Not their lengths but the damage is named, on either side; what was read before stays."""
    a, b = tmp_path / "c.en", tmp_path / "c.kk.gz"
    a.write_text("word\n" * 5000)
    whole = gzip.compress("".join(f"{random.Random(i).random()}\n" for i in range(5000)).encode())
    b.write_bytes(whole[:len(whole) // 2])
    found = rows(f"{b}|{a}")
    assert found[-1][3].startswith("unreadable") and all(r[3] is None for r in found[:-1]) and 1000 < len(found) < 4000
    other = rows(f"{a}|{b}")
    assert len(other) == 5000 and [r[3] is None for r in other].count(True) == len(found) - 1
    assert all(r[3].startswith("unreadable") for r in other[len(found) - 1:])
    b.write_bytes(gzip.compress("бір\nекі\nүш\n".encode()))
    a.write_text("one\ntwo\nthree\n")
    assert [d.offset for d in bitext_files.read_pairs(f"{b}|{a}")] == [0, 7, 14]


TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"><prop type="x">about</prop></header><body>
<tu tuid="1"><note>a note</note>
 <tuv xml:lang="en-US"><seg>The house is <bpt i="1">&lt;b</bpt>big<ept i="1">/b</ept> &amp; <hi>red</hi>.</seg></tuv>
 <tuv xml:lang="KK"><seg>Үй үлкен
  және қызыл.</seg></tuv></tu>
<tu><tuv lang="kk_KZ"><prop/><seg>Көпір ескі.<ph>{0}<sub>s</sub></ph></seg></tuv><tuv lang="de"><seg>Alt.</seg></tuv>
 <tuv lang="en"><seg>The bridge is old.</seg></tuv><tuv lang="en"><seg>second</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Alone.</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg></seg></tuv><tuv xml:lang="kk"><seg>Бос.</seg></tuv></tu>
</body></tmx>
"""


@pytest.mark.parametrize("around", ["", ".gz"])
def test_tmx(tmp_path, around):
    path = tmp_path / f"a.v1.tmx{around}"
    path.write_bytes(gzip.compress(TMX.encode()) if around else TMX.encode())
    found = [(" ".join(x.split()), y and " ".join(y.split()), line, reason)
             for x, y, line, reason in rows(path, "en", "kk")]
    assert found == [("The house is big & red.", "Үй үлкен және қызыл.", 4, None),
                     ("The bridge is old.", "Көпір ескі.", 8, None),
                     ("Alone.", None, 10, "no pair: the unit has no segment in kk"), ("", "Бос.", 11, None)]
    other = [(" ".join(y.split()), " ".join(x.split())) for x, y, _, reason in rows(path, "kk-KZ", "EN")
             if reason is None]
    assert other == [f[:2] for f in found if f[3] is None]
    lacking = ("de and fr", "fr", "de and fr", "de and fr")
    assert [r for *_, r in rows(path, "de", "fr")] == [f"no pair: the unit has no segment in {c}" for c in lacking]
    assert {d.file for d in bitext_files.read_pairs(path, "en", "kk")} == {str(path)}
    assert all(TMX.encode()[d.offset:].startswith(b"<tu") for d in bitext_files.read_pairs(path, "en", "kk"))


@pytest.mark.parametrize("spoil, line, message", [
    (lambda s: s.replace("</tuv></tu>\n<tu><tuv xml", "</tuv></ut>\n<tu><tuv xml", 1), 9,
     "not XML: mismatched tag: line 9"),
    (lambda s: s.replace("Alone.", "A & B", 1), 10, "not XML: not well-formed"),
    (lambda s: s.replace("Alone.", "A &nbsp; B", 1), 10, "not XML: undefined entity"),
    (lambda s: s[:s.index("Alone")], 10, "the file ends within <seg>"),
    (lambda s: "no XML at all\n" * 3, 1, "not XML: syntax error"),
    (lambda s: s + "<more/>", 13, "not XML: junk after document element")])
def test_tmx_that_is_not_xml_is_one_reject(tmp_path, spoil, line, message):
    path = tmp_path / "a.tmx"
    path.write_text(spoil(TMX))
    found = rows(path, "en", "kk")
    bad = [f for f in found if f[3] and "no pair" not in f[3]]
    assert len(bad) == 1 and bad[0] == found[-1] and bad[0][2] == line
    assert bad[0][3].startswith("unreadable from here on") and message in bad[0][3]
    assert [f[2] for f in found[:-1]] == [n for n in (4, 8, 10, 11) if n < line - (line == 9) or line == 13]


def test_tmx_with_a_line_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.tmx"
    path.write_bytes(TMX.encode().replace(b"<tu><tuv xml:lang=\"en\"><seg>Alone.</seg></tuv></tu>",
                                          b"<!-- \xff -->"))
    found = rows(path, "en", "kk")
    assert [f[3] for f in found] == [None, None, "not UTF-8 at byte 5", None] and found[2][2] == 10


BOMB = '<!DOCTYPE tmx [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("doctype", [
    BOMB, BOMB.replace("<!ENTITY a", "<!-- long -->\n<!ENTITY a"),
    '<!DOCTYPE tmx [<!ENTITY % x SYSTEM "file:///etc/passwd">%x;]>',
    '<!DOCTYPE tmx [<!ENTITY x SYSTEM "file:///etc/passwd">]>'])
def test_entities_are_refused(tmp_path, doctype):
    path = tmp_path / "a.tmx"
    path.write_text(TMX.replace('<!DOCTYPE tmx SYSTEM "tmx14.dtd">', doctype).replace("Alone.", "&b;"))
    with pytest.raises(ValueError, match="a.tmx, line [23]: entities .* remove them from the DOCTYPE"):
        rows(path, "en", "kk")


def test_what_looks_like_an_entity_in_a_sentence(tmp_path):
    path = tmp_path / "a.tmx"
    path.write_text(TMX.replace("Alone.", "<![CDATA[<!ENTITY x \"y\">]]>"))
    assert [r[0] for r in rows(path, "en", "kk")][2] == '<!ENTITY x "y">'


def test_tmx_needs_its_languages(tmp_path):
    (tmp_path / "a.tmx").write_text(TMX)
    with pytest.raises(ValueError, match="a.tmx: a .tmx file may hold many languages; set the two to read"):
        rows(tmp_path / "a.tmx", "en")
    with pytest.raises(FileNotFoundError):
        rows(tmp_path / "b.tmx", "en", "kk")


def test_tmx_is_let_go(tmp_path):
    """Memory does not grow with the file: 1,000 and 9,000 units take the same, whatever else stands between them."""
    peaks = []
    for n in (1_000, 9_000):
        path = tmp_path / f"{n}.tmx"
        unit = ('<tu><prop>x</prop><tuv xml:lang="en"><seg>The house {i}.</seg></tuv>\n'
                '<tuv xml:lang="kk"><seg>Үй {i}.</seg></tuv></tu><extra><a/></extra>\n')
        path.write_text("<tmx><body>\n" + "".join(unit.replace("{i}", str(i)) for i in range(n)) + "</body></tmx>\n")
        tracemalloc.start()
        assert sum(1 for d in bitext_files.read_pairs(path, "en", "kk") if d.reason is None) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0] + 4_000_000, peaks


# ---------------------------------------------------------------------- templates

def rendered(x, y, src, tgt, *codes):
    doc = Document(x, more={"target": y})
    assert translation_templates.format_pair(doc, src, tgt, *codes) is None
    return doc.text


def test_chinese_templates():
    own, names = translation_templates.NATIVE_TEMPLATES["zh"], translation_templates.NATIVE_NAMES["zh"]
    assert list(own) == list(translation_templates.TEMPLATES) and len(set(own.values())) == 11
    assert len(set(names.values())) == 29
    for letter, template in own.items():
        text = template.format(src="源", tgt="标", x="SOURCE", y="TARGET")
        assert text.count("SOURCE") == text.count("TARGET") == 1 and text.index("SOURCE") < text.index("TARGET")
        assert "标" in text and "{" not in text
        assert text.count("\n") == translation_templates.TEMPLATES[letter].count("\n")
        assert ("源" in text) == ("{src}" in translation_templates.TEMPLATES[letter])
    assert names["zh"] == "中文" and names["kk"] == "哈萨克语"
    assert all("一" <= c <= "鿿" for name in names.values() for c in name)


BEFORE = ['Please change the sentence "A house 0." to Kazakh, and the resulting translation is: Үй 0.',
          'The sentence "Үй 1." in Kazakh means "A house 1." in English.',
          'Provide the translation of the sentence "A house 2." from English to Kazakh: Үй 2.',
          'Change the phrase "A house 3." to Kazakh, resulting in: Үй 3.',
          'Translate the text from English to Kazakh.\nEnglish text: A house 4.\nKazakh text: Үй 4.',
          'English phrase: A house 5.\nKazakh phrase: Үй 5.']


@pytest.mark.parametrize("codes", [(), (("en", "kk"),)])
def test_texts_worded_in_english_are_those_of_before(codes):
    assert [rendered(f"A house {i}.", f"Үй {i}.", "English", "Kazakh", *codes) for i in range(6)] == BEFORE


def test_half_of_the_texts_that_begin_in_chinese_are_worded_in_it():
    found = Counter()
    for i in range(3000):
        x, y = f"房子 {i}。", f"Үй {i}."
        text = rendered(x, y, "Chinese", "Kazakh", ("zh", "kk"))
        kinds = (("English", translation_templates.TEMPLATES, "Chinese", "Kazakh"),
                 ("own", translation_templates.NATIVE_TEMPLATES["zh"], "中文", "哈萨克语"))
        forms = {(kind, first, k): t.format(src=a, tgt=b, x=p, y=q) for kind, table, zh, kk in kinds
                 for k, t in table.items()
                 for first, a, b, p, q in (("zh", zh, kk, x, y), ("kk", kk, zh, y, x))}
        found[next(name for name, form in forms.items() if form == text)] += 1
    kinds = Counter()
    for (kind, first, _), n in found.items():
        kinds[kind, first] += n
    assert set(kinds) == {("English", "zh"), ("English", "kk"), ("own", "zh")} and len(found) == 33
    assert 650 < kinds["English", "zh"] < 850 and 650 < kinds["own", "zh"] < 850
    assert 1400 < kinds["English", "kk"] < 1600
    assert all(35 < n < 105 for (_, first, _), n in found.items() if first == "zh")  # 68 each, within 4 sigma


def test_languages_without_a_name_in_the_table_are_worded_in_english():
    for i in range(200):
        text = rendered(f"房子 {i}。", f"Nyumba {i}.", "Chinese", "Swahili", ("zh", "sw"))
        assert "Chinese" in text or "Swahili" in text
        assert "Kazakh" in (t := rendered(f"Haus {i}.", f"Үй {i}.", "German", "Kazakh", ("de", "kk"))) or "German" in t


def test_braces_in_sentences_are_no_slots():
    for i, codes in itertools.product(range(60), ((None, None), ("zh", "en"))):
        assert f"{{src}} {i} {{y}}" in rendered(f"{{src}} {i} {{y}}", f"{{tgt}} {{0}} {i}", "Chinese", "English", codes)
