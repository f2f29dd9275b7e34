"""Files of sentence pairs as people publish them: columns, headers, quotes, encodings; numbers and words of other
scripts."""
import bz2
import csv
import io
import json
import runpy
from pathlib import Path

import pytest
from test_bitext import TMX, rows, verdict

from corpus import bitext_files, bitext_tsv, parquet
from corpus.bitext_numbers import numbers_differ

EN = ["The river flows.", "He said \"come in\" and left.", "Where is the market?", "It costs 5 euros.", "Good day"]
DE = ["Der Fluss fließt.", "Er sagte \"herein\" und ging.", "Wo ist der Markt?", "Es kostet 5 Euro.", "Guten Tag"]
PAIRS = list(zip(EN, DE))


def write(path, *columns):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in zip(*columns)), encoding="utf-8")
    return path


def pairs(path, source="en", target="de"):
    return [(d.text, d.more.get("target")) for d in bitext_files.read_pairs(path, source, target) if d.reason is None]


def reasons(path, source="en", target="de"):
    return [d.reason for d in bitext_files.read_pairs(path, source, target) if d.reason]


# ---------------------------------------------------------------------- columns

@pytest.mark.parametrize("name, columns, scores", [
    ("plain", (EN, DE), [None] * 5),
    ("WikiMatrix", ([1.25, 1.0, 1.1, 1.06, 1], EN, DE), [1.25, 1.0, 1.1, 1.06, 1]),
    ("Tatoeba", (range(1276, 1281), EN, range(77, 82), DE), [None] * 5),
    ("Tatoeba Challenge", (["eng"] * 5, ["deu"] * 5, EN, DE), [None] * 5),
    ("CCAligned", (EN, DE, [1.5, 0.25, 1e-3, 2, 3.5]), [1.5, 0.25, 1e-3, 2, 3.5]),
    ("ids behind", (EN, DE, range(5)), [None] * 5),
    ("Bitextor", (["https://a.example/"] * 5, ["https://a.example/de"] * 5, EN, DE, [0.5, 0.7, 0.9, 0.8, 0.1]),
     [0.5, 0.7, 0.9, 0.8, 0.1]),
    ("one row of WikiMatrix", (["1.07"], EN[:1], DE[:1]), [1.07]),
    ("notes", (EN, DE, ["clean", "copy", "clean", "", "x"]), [None] * 5)])
def test_columns_are_found_by_what_they_hold(tmp_path, name, columns, scores):
    path = write(tmp_path / "a.tsv", *columns)
    docs = list(bitext_files.read_pairs(path, "en", "de"))
    assert [(d.text, d.more["target"]) for d in docs] == PAIRS[:len(docs)] and len(docs) == len(columns[0])
    assert [d.more.get("score") for d in docs] == scores and not any(d.reason for d in docs)
    assert docs[0].url == ("https://a.example/" if name == "Bitextor" else "")
    assert [d.line for d in docs] == list(range(1, len(docs) + 1)) and docs[0].offset == 0


def test_columns_of_numbers_only_are_pairs(tmp_path):
    """A list of numbers in two languages has no text column; its first two columns are the pair."""
    assert pairs(write(tmp_path / "a.tsv", [1, 2], [3, 4])) == [("1", "3"), ("2", "4")]
    assert pairs(write(tmp_path / "b.tsv", ["no", "no"], ["nein", "nicht"])) == [("no", "nein"), ("no", "nicht")]


@pytest.mark.parametrize("header, columns, swapped", [
    (("en", "de"), (EN, DE), False), (("de", "en"), (DE, EN), True), (("English", "German"), (EN, DE), False),
    (("deu_Latn", "eng_Latn"), (DE, EN), True), (("source", "target", "score"), (EN, DE, [1.5] * 5), False),
    (("score", "sentence1", "sentence2"), ([1.5] * 5, EN, DE), False), (("tgt", "src"), (DE, EN), True),
    (("id", "EN", "id", "DE"), (range(5), EN, range(5), DE), False),
    (("lang1", "text", "translation"), (["en"] * 5, EN, DE), False)])
def test_headers(tmp_path, header, columns, swapped):
    """A header is no pair; the order of the languages that it names counts."""
    path = write(tmp_path / "a.tsv", *([name, *column] for name, column in zip(header, columns)))
    assert pairs(path) == PAIRS and reasons(path) == []
    assert [d.line for d in bitext_files.read_pairs(path, "en", "de")] == [2, 3, 4, 5, 6]
    if "score" in header:
        assert all(d.more["score"] == 1.5 for d in bitext_files.read_pairs(path, "en", "de") if d.reason is None)


def test_what_only_looks_like_a_header(tmp_path):
    """A first row of words that name no columns is a pair; so is one of names that are not both known."""
    for first in (("Hello", "Hallo"), ("English", "Englisch"), ("source", "Quelle")):
        path = write(tmp_path / "a.tsv", [first[0], *EN], [first[1], *DE])
        assert pairs(path) == [first, *PAIRS]


# ---------------------------------------------------------------------- quotes

def spreadsheet(path, rows, quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t", quoting=quoting, lineterminator="\n").writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


ODD = [("She said \"come in\".", "Sie sagte „herein“."), ("a\ttab", "ein\tTab"), ("two\nlines", "zwei\nZeilen"),
       ("\"All\"", "\"Alles\""),
       ("", "leer"), ("5\" wide", "5\" breit")]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("header", [[], [("en", "de")]])
def test_the_quotes_of_a_spreadsheet_are_undone(tmp_path, quoting, header):
    path = spreadsheet(tmp_path / "a.tsv", [*header, *PAIRS, *ODD], quoting)
    assert pairs(path) == [*PAIRS, *ODD] and reasons(path) == []
    places = [(d.line, d.offset) for d in bitext_files.read_pairs(path, "en", "de")]
    raw = path.read_bytes()
    assert places == sorted(places) and all(offset == 0 or raw[offset - 1:offset] == b"\n" for _, offset in places)


@pytest.mark.parametrize("rows", [
    [("\"Come in.\"", "„Herein.“"), ("It is so.", "So ist es.")],  # a quotation, and no spreadsheet's
    # quotes within a field that has none around it
    [("\"Come in,\" he said.", "„Herein“, sagte er."), ("\"\"", "\"\"")],
    [("\"Open", "Offen\""), ("x", "y")], [("5\" wide", "5\" breit"), ("\"a\"", "\"b\"")]])
def test_quotations_stay(tmp_path, rows):
    assert pairs(write(tmp_path / "a.tsv", *zip(*rows))) == rows


def test_a_quote_that_is_never_closed_is_counted(tmp_path):
    """Behind the sample by which the file is judged: every line that the open field takes is a reject."""
    path = spreadsheet(tmp_path / "a.tsv", [*ODD, *PAIRS * 2500])
    assert len(PAIRS * 2500) > bitext_tsv.SAMPLE
    with open(path, "a") as f:
        f.write("\"open\tfield\n" + "lost\tline\n" * 4)
    assert len(pairs(path)) == len(ODD) + 12_500 and reasons(path) == ["quotes: a field is not closed by a quote"] * 5
    with open(path, "a") as f:
        f.write("lost\tline\n" * 200 + "\"a \"\"b\"\"\"\tc\n")
    assert pairs(path)[-1] == ('a "b"', "c") and len(reasons(path)) == 101


# ---------------------------------------------------------------------- other files

@pytest.mark.parametrize("declaration", ['<!ENTITY a "aaaa">', '<!ATTLIST tu a CDATA "aaaa">'])
def test_tmx_that_expands_is_refused(tmp_path, declaration):
    (tmp_path / "a.tmx").write_text(f"<!DOCTYPE tmx [{declaration}]>\n<tmx><body><tu/></body></tmx>\n")
    with pytest.raises(ValueError, match="a.tmx, line 1: entities and default attributes can expand"):
        list(bitext_files.read_pairs(tmp_path / "a.tmx", "en", "kk"))


def test_a_tmx_unit_without_end_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(bitext_files.files, "MAX_LINE", 1 << 10)
    variants = [f'<tuv xml:lang="{code}"><seg>{code}</seg></tuv>\n' for code in ("en", "kk")]
    unit = "<tu>\n" + "".join(variants) + "</tu>\n"
    (tmp_path / "a.tmx").write_text("<tmx><body>\n" + 99 * unit + "<tu>\n" + 99 * variants[0] + "</tu></body></tmx>\n")
    *found, last = bitext_files.read_pairs(tmp_path / "a.tmx", "en", "kk")
    assert len(found) == 99 and not any(doc.reason for doc in found)
    assert last.reason == "unreadable from here on: a unit longer than 0 MiB" and last.line == 398


@pytest.mark.parametrize("encode, name", [
    (lambda s: bz2.compress(s.encode()), "a.tmx.bz2"), (lambda s: s.encode("utf-16"), "a.tmx"),
    (lambda s: b"\xfe\xff" + s.encode("utf-16-be"), "a.tmx"), (lambda s: bz2.compress(s.encode("utf-16")), "a.tmx.bz2"),
    (lambda s: ("\ufeff" + s).encode(), "a.tmx")])
def test_tmx_of_other_encodings(tmp_path, encode, name):
    """SDL and memoQ write UTF-16 and say so in the first line; the result is that of the file in UTF-8."""
    (tmp_path / "plain.tmx").write_bytes(TMX.encode())
    text = TMX.replace('encoding="UTF-8"', 'encoding="utf-16"') if b"\xff" in encode("")[:2] else TMX
    (tmp_path / name).write_bytes(encode(text))
    assert rows(tmp_path / name, "en", "kk") == rows(tmp_path / "plain.tmx", "en", "kk")


def test_parquet_with_a_column_of_translations(tmp_path, monkeypatch):
    """As opus-100 is published; the rows come from a list, so the test needs no pyarrow."""
    table = [{"translation": {"en": "A", "kk": "B"}}, {"translation": {"en": "C", "kk": None}},
             {"source": "D", "target": "E"}]
    monkeypatch.setattr(parquet, "read_parquet", lambda path: ((i, row, None) for i, row in enumerate(table, 1)))
    found = rows(tmp_path / "a.parquet", "en", "kk")
    assert [r[:3] for r in found if r[3] is None] == [("A", "B", 1), ("D", "E", 3)]
    assert found[1][3].startswith("no pair: its fields are translation; needed are text and target, src and tgt")


def test_json_lines_named_json(tmp_path):
    (tmp_path / "a.json").write_text("".join(json.dumps({"translation": {"en": x, "de": y}}) + "\n" for x, y in PAIRS))
    (tmp_path / "b.json").write_text(json.dumps([{"src": x, "tgt": y} for x, y in PAIRS]))
    assert pairs(tmp_path / "a.json") == pairs(tmp_path / "b.json") == PAIRS


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "README").write_text("pairs\n")
    with pytest.raises(ValueError, match="README: unknown format '' of sentence pairs; expected .tsv"):
        pairs(tmp_path / "README")


def own_sources(folder, monkeypatch):
    monkeypatch.chdir(folder)
    config = Path(__file__).parent.parent / "configs/own/data.py"
    return {s["name"]: (s["path"], s["language"], s["target"]) for s in runpy.run_path(str(config))["sources"]}


def test_own_bitext(tmp_path, monkeypatch):
    """configs/own/data.py: a README beside the pairs is no source, and aligned files may be compressed."""
    (tmp_path / "own/bitext").mkdir(parents=True)
    for name in ("README", "README.md", ".hidden", "notes.txt", "en-kk.tsv", "de-en.de.gz", "de-en.en.gz", "en-ru.en",
                 "en-ru.ru",
                 "en-fr.tmx.bz2"):
        (tmp_path / "own/bitext" / name).write_text("")
    assert own_sources(tmp_path, monkeypatch) == {
        "bitext-en-kk": ("bitext/en-kk.tsv", "en", "kk"), "bitext-en-fr": ("bitext/en-fr.tmx.bz2", "en", "fr"),
        "bitext-de-en": ("bitext/de-en.de.gz|bitext/de-en.en.gz", "de", "en"),
        "bitext-en-ru": ("bitext/en-ru.en|bitext/en-ru.ru", "en", "ru")}
    for name in ("pairs.tsv", "a-b-c.jsonl"):
        (tmp_path / "own/bitext" / name).write_text("")
        with pytest.raises(ValueError, match=f"{name}: name it after its two languages, like en-kk.tsv"):
            own_sources(tmp_path, monkeypatch)
        (tmp_path / "own/bitext" / name).unlink()


# ---------------------------------------------------------------------- words and years

@pytest.mark.parametrize("code, x, y", [
    ("km", "The people of the village met at the river to plant trees and clean the bank.",
     "ប្រជាជនក្នុងភូមិបានជួបជុំគ្នានៅមាត់ទន្លេដើម្បីដាំដើមឈើនិងសម្អាតច្រាំង។"),
    ("lo", "The people of the village met at the river to plant trees.",
     "ຊາວບ້ານໄດ້ພົບກັນຢູ່ແຄມແມ່ນ້ຳເພື່ອປູກຕົ້ນໄມ້ແລະທຳຄວາມສະອາດຝັ່ງ"),
    ("my", "The people of the village met at the river to plant trees.",
     "ရွာသားများသည်မြစ်ကမ်းတွင်သစ်ပင်များစိုက်ပျိုးရန်စုဝေးခဲ့ကြသည်။"),
    ("bo", "The people of the village met at the river.", "གྲོང་ཚོའི་མི་རྣམས་གཙང་པོའི་འགྲམ་དུ་འཛོམས་ནས་ཤིང་སྡོང་བཙུགས་པ་རེད།")])
def test_long_words_in_scripts_without_spaces(code, x, y):
    assert max(map(len, y.split())) > 40 and verdict(x, y, f"en-{code}", max_ratio=4.0) is None


def test_long_words_in_scripts_with_spaces():
    assert verdict("He came to see it all.", "Er" + "abcde" * 9 + " kam",
                   "en-de") == "a word of more than 40 characters"
    assert verdict("He came to see all of it then.", "ប្រជាជន " + "abcde" * 9,
                   "en-km") == "a word of more than 40 characters"


@pytest.mark.parametrize("x, y, source, target, differ", [
    ("It rained in 2020.", "ฝนตกในปี 2563", "en", "th", False),
    ("It rained in 2020.", "ฝนตกในปี พ.ศ. ๒๕๖๓", "en", "th", False),
    ("It rained in 2020.", "ฝนตกในปี 2563 (ค.ศ. 2020)", "en", "th", False),
    ("It rained in 2020.", "ฝนตกในปี 2562", "en", "th", True),
    ("It rained in 2020.", "Es regnete 2563.", "en", "de", True),
    ("It costs 2563 baht.", "ราคา 2020 บาท", "en", "th", True),
    ("from 2020 to 2021", "2563 ถึง 2564", "en", "th", False), ("from 2020 to 2021", "2563 ถึง 2565", "en", "th", True),
    ("in 2020", "सन् २०७७ मा", "en", "ne", False), ("in 2020", "सन् २०७५ मा", "en", "ne", True),
    ("in 2020", "عام 1441", "en", "ar", False), ("in 2020", "عام ١٤٤٢", "en", "ar", False),
    ("in 2020", "عام 1430", "en", "ar", True),
    ("in 2019", "令和元年に", "en", "ja", False), ("in 1998", "平成10年", "en", "ja", False),
    ("in 1999", "平成10年", "en", "ja", True),
    ("in 2019", "2019年（令和元年）", "en", "ja", False), ("in 2020", "民國109年", "en", "zh", False),
    ("in the year 5780", "2020 שנת", "he", "en", False), ("১৪২৭ সালে", "in 2020", "bn", "en", False),
    ("in 2020", "በ2012 ዓ.ም", "en", "am", False), ("ฝนตกในปี 2563", "It rained in 2020.", "th", "en", False),
    ("It rained in 2020.", "ฝนตกในปี 2563", None, None, True)])
def test_years_of_other_calendars(x, y, source, target, differ):
    assert numbers_differ(x, y, source, target) is differ
