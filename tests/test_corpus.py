"""corpus/: every row of every format comes out once, as a document or as one reject; each filter keeps and drops what
it says.
"""
import bz2
import gzip
import json
import lzma
import random
import zlib
from collections import Counter
from functools import partial

import numpy as np
import pytest
import regex

from corpus import bitext, bitext_files, clean, decontaminate, dedup, files, measure, read, translation_templates
from corpus.read import Document

GOOD = ["The first line.", "Сәлем, әлем!", "第三行。", "Last one, with \"quotes\" and \\ slashes."]


def jsonl(texts):
    return "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts).encode()


def packed(path, raw):
    """Write raw as the suffix of path asks for."""
    if path.suffix == ".zst":
        raw = pytest.importorskip("zstandard").ZstdCompressor().compress(raw)
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    path.write_bytes(packers.get(path.suffix, bytes)(raw))
    return path


def split(docs):
    """(texts that came out, [(line, reason)] of the rejects)."""
    docs = list(docs)
    return [d.text for d in docs if d.reason is None], [(d.line, d.reason) for d in docs if d.reason is not None]


# ---------------------------------------------------------------------- formats

@pytest.mark.parametrize("around", ["", ".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".txt", ".tsv"])
def test_formats(tmp_path, kind, around):
    raw = {".jsonl": jsonl(GOOD), ".txt": "\n\n".join(GOOD).encode(),
           ".tsv": "".join(f"{t}\tright\n" for t in GOOD).encode()}[kind]
    path = packed(tmp_path / f"part.v2{kind}{around}", raw)
    docs = list(read.read_documents(path))
    assert [d.text for d in docs] == GOOD
    assert [d.line for d in docs] == ([1, 3, 5, 7] if kind == ".txt" else [1, 2, 3, 4])
    assert {d.file for d in docs} == {str(path)} and not any(d.reason for d in docs)
    if kind == ".tsv":
        assert all(d.more == {"columns": ["right"]} for d in docs)


def test_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [*GOOD, None], "url": ["https://a.example"] * 5, "label": list("abcde")}), path)
    docs = list(read.read_documents(path))
    assert [d.text for d in docs[:4]] == GOOD and docs[0].url == "https://a.example" and docs[1].more == {"label": "b"}
    assert docs[4].line == 5 and docs[4].reason.startswith("no text")
    pq.write_table(pa.table({"content": GOOD}), path)
    assert [d.text for d in read.read_documents(path)] == GOOD
    pq.write_table(pa.table({"body": GOOD}), path)
    assert {d.reason.split("; ")[1] for d in read.read_documents(path)} == {"its fields are body"}


def test_parquet_with_a_bad_footer_names_the_file(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is no table PAR1")
    doc, = read.read_documents(tmp_path / "bad.parquet")
    assert doc.file.endswith("bad.parquet") and doc.reason.startswith("unreadable from here on: not a parquet file")


def test_other_fields_and_address(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "url": "https://x.example", "label": "clean", "n": 3}\n')
    doc, = read.read_documents(path)
    assert doc.url == "https://x.example" and doc.more == {"label": "clean", "n": 3}


def test_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="unknown format '.docx'.*expected .jsonl"):
        list(read.read_documents(tmp_path / "a.docx"))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read.read_documents(tmp_path / "a.jsonl"))


def test_units_of_plain_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n\n  \nthree\n")
    assert [(d.text, d.line) for d in read.read_documents(path, "line")] == [("one", 1), ("two", 2), ("three", 6)]
    assert [(d.text, d.line) for d in read.read_documents(path, "paragraph")] == [("one\ntwo", 1), ("three", 6)]
    assert [d.text.split() for d in read.read_documents(path, "file")] == [["one", "two", "three"]]
    path.write_text("\n \n")
    assert not any(list(read.read_documents(path, unit)) for unit in ("line", "paragraph", "file"))


# ---------------------------------------------------------------------- corrupted rows: one reject each, nothing else
# lost

BAD_ROWS = {
    "invalid UTF-8": (b'{"text": "abc \xff\xfe def"}', "not UTF-8 at byte 14"),
    "UTF-8 cut in a character": ('{"text": "é'.encode()[:-1], "not UTF-8"),
    "NUL": (b"\x00" * 40, "not JSON"),
    "cut line": (b'{"text": "The text stops h', "not JSON"),
    "array": (b'["text", "abc"]', "no text"),
    "number": (b"42", "no text"),
    "null": (b"null", "no text"),
    "string": (b'"text"', "no text"),
    "no text field": (b'{"body": "abc"}', "no text"),
    "null text": (b'{"text": null}', "no text"),
    "number as text": (b'{"text": 5}', "no text"),
    "list as text": (b'{"text": ["a", "b"]}', "no text"),
    "lone surrogate": (b'{"text": "half \\ud800 a pair"}', "lone surrogate"),
    "two objects": (b'{"text": "a"} {"text": "b"}', "not JSON"),
    "nested too deep": (b"[" * 100_000, ""),
    "number too long": (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", ""),
}


@pytest.mark.parametrize("name", BAD_ROWS)
@pytest.mark.parametrize("around", ["", ".gz"])
def test_a_bad_row_is_one_reject(tmp_path, name, around):
    raw, reason = BAD_ROWS[name]
    path = packed(tmp_path / f"a.jsonl{around}", jsonl(GOOD[:2]) + raw + b"\n" + jsonl(GOOD[2:]))
    kept, rejects = split(read.read_documents(path))
    assert kept == GOOD
    assert len(rejects) == 1 and rejects[0][0] == 3 and rejects[0][1].startswith(reason), rejects


def test_many_bad_rows_at_once(tmp_path):
    """1,000 good rows with all bad ones spread among them: 1,000 documents, in order, and one reject for each of the
    others.
    """
    bad = [raw for name, (raw, _) in BAD_ROWS.items() if name not in ("nested too deep", "number too long")]
    rows = [json.dumps({"text": f"document {i}"}).encode() for i in range(1000)]
    places = {}
    for i, raw in enumerate(bad):
        rows.insert(60 * i + 7, raw)
        places[60 * i + 8] = raw
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(rows))  # and no newline at the end
    kept, rejects = split(read.read_documents(path))
    assert kept == [f"document {i}" for i in range(1000)]
    assert sorted(line for line, _ in rejects) == sorted(places)


@pytest.mark.parametrize("around", [".gz", ".xz"])
def test_truncated_compression(tmp_path, around):
    """Every line that can still be decompressed comes out; the rest of the file is one reject that says so."""
    path = tmp_path / f"a.jsonl{around}"
    texts = [f"document {i} {zlib.crc32(b'%d' % i):x}" for i in range(20_000)]
    whole = (gzip.compress if around == ".gz" else lzma.compress)(jsonl(texts))
    path.write_bytes(whole[:len(whole) // 2])
    inflate = zlib.decompressobj(31) if around == ".gz" else lzma.LZMADecompressor()
    there = inflate.decompress(whole[:len(whole) // 2]).count(b"\n")
    assert 1000 < there < 19_000
    kept, rejects = split(read.read_documents(path))
    assert kept == texts[:len(kept)] and len(rejects) == 1
    assert rejects[0] == (len(kept) + 1, rejects[0][1]) and "unreadable" in rejects[0][1]
    assert len(kept) == there, f"{there} whole lines can be decompressed, {len(kept)} came out"


def test_truncated_zst_is_not_silent(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    texts = [f"document {i} {zlib.crc32(b'%d' % i):x}" for i in range(20_000)]
    whole = zstandard.ZstdCompressor().compress(jsonl(texts))
    path = tmp_path / "a.jsonl.zst"
    for raw in (whole[:len(whole) // 2], b"no zstd frame at all"):
        path.write_bytes(raw)
        kept, rejects = split(read.read_documents(path))
        assert kept == texts[:len(kept)]
        assert len(rejects) == 1 and rejects[0][1], "the end is missing and nothing says so"


@pytest.mark.parametrize("around", [".gz", ".xz"])
def test_flipped_byte_in_compression(tmp_path, around):
    """Whatever the damage looks like to the decompressor, it ends in a reject and never in a traceback."""
    path = packed(tmp_path / f"a.jsonl{around}", jsonl(f"document {zlib.crc32(b'%d' % i):x}" for i in range(1000)))
    whole = path.read_bytes()
    for place in range(len(whole) // 8, len(whole) - 100, len(whole) // 8):
        raw = bytearray(whole)
        raw[place] ^= 0xff
        path.write_bytes(raw)
        _, rejects = split(read.read_documents(path))
        assert rejects and "unreadable" in rejects[-1][1], place


@pytest.mark.parametrize("around", [".gz", ".xz", ".zst"])
def test_concatenated_compressed_parts_are_one_file(tmp_path, around):
    """cat a.gz b.gz is a valid file, and parallel compressors write many frames; all of them are read."""
    first, second = (packed(tmp_path / f"{i}{around}", jsonl(texts)).read_bytes() for i,
                     texts in enumerate((GOOD[:2], GOOD[2:])))
    path = tmp_path / f"both.jsonl{around}"
    path.write_bytes(first + second)
    assert split(read.read_documents(path)) == (GOOD, [])


def test_line_longer_than_the_limit(tmp_path, monkeypatch):
    """One reject; what stands before and behind it stays, with its number and place."""
    monkeypatch.setattr(files, "MAX_LINE", 1 << 21)
    path = tmp_path / "a.txt"
    path.write_bytes(b"short\n" + b"x" * (1 << 23) + b"\nlast\n")
    docs = list(read.read_documents(path, "line"))
    assert [(d.text, d.line, d.offset, d.reason) for d in docs] == [
        ("short", 1, 0, None), ("", 2, 6, "line longer than 2 MiB"), ("last", 3, 7 + (1 << 23), None)]
    path.write_bytes(b"short\n" + b"x" * (1 << 23))  # and at the end of a file
    assert [(d.line, d.reason) for d in read.read_documents(path, "line")] == [(1, None), (2, "line longer than 2 MiB")]


def test_byte_order_mark_windows_lines_and_separators_inside(tmp_path):
    path = tmp_path / "a.jsonl"
    texts = ["a\u2028b", "c\u2029d", "e\u0085f", "g\x0bh\x0ci", "j\r\nk"]
    path.write_bytes(b"\xef\xbb\xbf" + jsonl(texts).replace(b"\n", b"\r\n"))
    kept, rejects = split(read.read_documents(path))
    assert kept == texts and not rejects
    plain = tmp_path / "a.txt"
    plain.write_bytes("\ufeffone\u2028still one\r\ntwo".encode())
    assert [(d.text, d.line) for d in read.read_documents(plain, "line")] == [("one\u2028still one", 1), ("two", 2)]


def test_empty_lines_files_and_texts(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"")
    assert list(read.read_documents(path)) == []
    path.write_bytes(b'\n{"text": ""}\n\n  \n{"text": " \\n "}\n')
    docs = list(read.read_documents(path))
    # blank lines are no rows; an empty text is one, and the length filter drops it
    assert [d.line for d in docs] == [2, 5]
    for doc in docs:
        clean.repair(doc)
        assert clean.filter_heuristics(doc, {"chars": (1, 100)}) == "chars: too low"


def wet(texts, kind="conversion"):
    head = "WARC/1.0\r\nWARC-Type: {}\r\nWARC-Target-URI: {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n"
    records = [head.format("warcinfo", "", 9) + "Software:\r\n\r\n"]
    records += [head.format(kind, url, len(text.encode())) + text + "\r\n\r\n" for url, text in texts]
    return "".join(records).encode()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gz", "bz2", "xz"])
def test_common_crawl_text(tmp_path, pack):
    """Texts hold blank lines and WARC/1.0 of their own; lengths say where they end."""
    texts = [("https://a.example/", "First line.\n\nWARC/1.0\nstill the first"),
             ("https://b.example/қ", "Екінші мәтін.\n"), ("", "")]
    path = tmp_path / ("a.warc.wet" + {gzip.compress: ".gz", bz2.compress: ".bz2", lzma.compress: ".xz"}.get(pack, ""))
    path.write_bytes(pack(wet(texts)))
    info, *docs = read.read_documents(path)
    assert info.reason == "skipped: record of type warcinfo"
    assert [(d.url, d.text, d.reason) for d in docs] == [(url, text, None) for url, text in texts]
    assert [d.line for d in docs] == [2, 3, 4]
    whole = wet(texts)
    assert all(whole[d.offset:].startswith(b"WARC/1.0") for d in docs)
    path.write_bytes(pack(whole[:-20]))
    _, *good, bad = read.read_documents(path)
    assert [d.text for d in good] == [texts[0][1], texts[1][1]][:len(good)]
    assert bad.reason.startswith("unreadable from here on") or len(good) == 2


@pytest.mark.parametrize("spoil, words", [
    (lambda b: b.replace(b"Content-Length: 9", b"Content-Length: x"), "claims a length"),
    (lambda b: b.replace(b"Content-Length: 9", b"Content-Length: 99999999999"), "is cut"),
    (lambda b: b[:-12], "is cut"), (lambda b: b"<html>" + b, "does not begin with WARC/")])
def test_damaged_common_crawl_text(tmp_path, spoil, words):
    path = tmp_path / "a.wet"
    path.write_bytes(spoil(wet([("https://a.example/", "One text that is cut in its middle.")])))
    *_, last = read.read_documents(path)
    assert last.reason.startswith("unreadable from here on") and words in last.reason


def test_invalid_line_in_plain_text_and_tsv(tmp_path):
    for kind in (".txt", ".tsv"):
        path = tmp_path / f"a{kind}"
        path.write_bytes(b"one\tright\nbad \xff\tright\nthree\tright\n")
        kept, rejects = split(read.read_documents(path, "line"))
        assert len(kept) == 2 and rejects == [(2, "not UTF-8 at byte 4")]


def test_block_boundaries_do_not_matter(tmp_path):
    """Lines longer than the reader's blocks, and characters cut by them, arrive whole."""
    texts = ["é" * 700_000, "short", "漢" * 500_000 + "x"]
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(texts))
    assert split(read.read_documents(path)) == (texts, [])


# ---------------------------------------------------------------------- filters

def verdict(step, text, **fields):
    answer = step(Document(text, **fields))
    return answer and answer.split(":")[0]


def within(**bounds):
    return partial(clean.filter_heuristics, bounds=bounds)


STOP = "This is a sentence. "
CASES = [  # filter, a text it keeps, a text it drops, the reason's first word
    (within(chars=(5, 10)), "12345", "1234", "chars"),
    (within(chars=(5, 10)), "1234567890", "12345678901", "chars"),
    (within(full_stops=(0.5, 1)), "Home\nThis is it.", "Home\nNews\nThis is it.", "full_stops"),
    (within(full_stops=(0.5, 1)), "これは文です。", "これは文です", "full_stops"),
    (within(full_stops=(0, 1)), "ไม่มีจุด", None, None),
    (within(symbols=(0, 0.1)), "It costs 5 $ and rose.", "#*|= 5 $ \\<>", "symbols"),
    (within(symbols=(0, 0.1)), "नमस्ते दुनिया।", "☃☃☃ snow", "symbols"),
    (within(dup_sentence_chars=(0, 0.3)), "One.\nTwo.\nThree.\nOne.", "One.\nOne.\nOne.\nTwo.", "dup_sentence_chars"),
    (within(dup_sentence_chars=(0, 0.3)), "我们走。你们来。", "我们走。我们走。我们走。", "dup_sentence_chars"),
    (within(ends=(1, 1)), "The end.", "The en", "ends"),
    (within(ends=(1, 1)), "ختم شد۔", "ختم شد", "ends"),
    (within(ends=(0, 1)), "The en", None, None),
    (within(words=(3, 9)), "one two three", "one two", "words"),
    (within(mean_word=(3, 10)), "these are fine words", "a b c d", "mean_word"),
    (within(marks=(0, 0.1)), "a fine day " * 4 + "...", "wait... what... no...", "marks"),
    (within(bullets=(0, 0.9)), "- one\n- two\nthree", "- one\n• two", "bullets"),
    (within(ellipses=(0, 0.3)), "One...\ntwo\nthree\nfour", "One...\ntwo…", "ellipses"),
    (within(with_letter=(0.8, 1)), "one two three four 5", "1 2 3 four", "with_letter"),
    (within(top_2=(0, 0.2)), " ".join(f"w{i} x{i}" for i in range(20)), "buy now " * 9, "top_2"),
    (within(dup_5=(0, 0.15)), " ".join(f"w{i}" for i in range(40)), "one two three four five six " * 4, "dup_5"),
    (within(urls=(0, 0.5)), "See https://a.example for more on that and much else.", "https://a.example/b/c/d", "urls"),
    (partial(clean.filter_language, identify=lambda text: text[:2], wanted={"id", "ms"}), "ms", "en", "language"),
]


@pytest.mark.parametrize("step, good, bad, reason", CASES)
def test_filter_keeps_and_drops(step, good, bad, reason):
    assert verdict(step, good) is None
    if bad is not None:
        assert verdict(step, bad) == reason


def test_url():
    step = partial(clean.filter_url, words=["casino"])
    assert verdict(step, "x", url="https://museum.example/a") is None
    assert verdict(step, "x", url="https://Best-CASINO.example") == "url"
    assert step(Document("casino", url="")) is None  # the text is not the address
    assert verdict(partial(clean.filter_url, words=[]), "x", url="https://casino.example") is None


def test_empty_text_breaks_no_filter():
    for step in [c[0] for c in CASES[:11]] + [clean.repair]:
        answer = step(Document(""))
        assert answer is None or (isinstance(answer, str) and answer)


def repaired(text):
    doc = Document(text)
    clean.repair(doc)
    return doc.text


def test_repair():
    assert repaired("e\u0301te\u0301") == "été"
    assert repaired("a\r\nb\rc") == "a\nb\nc"
    assert repaired("  a \n\n\n\n\tb  ") == "  a\n\n\tb"
    assert repaired("a\x00b\x07\ufeffc\x7f") == "abc"
    assert repaired("क्‍ष") == "क्‍ष"  # the joiner of Indic scripts stays
    for text in ("a\r\n\r\n\r\nb ", "e\u0301\u2028x"):
        assert repaired(repaired(text)) == repaired(text)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c"])
def test_repair_does_not_glue_words(separator):
    """Line and paragraph separators, vertical tabs and form feeds stand between words."""
    assert repaired(f"one{separator}two").split() == ["one", "two"]


def test_identifier():
    pytest.importorskip("py3langid")
    identify = clean.load_langid({"en", "de", "kk"})
    assert [identify(t) for t in ("This is an English sentence.", "Das ist ein deutscher Satz.",
                                  "Бұл қазақ тіліндегі сөйлем.")] == \
        ["en", "de", "kk"]


# ---------------------------------------------------------------------- measures

TEXTS = ["", " ", "word", "a b a b a b a b", "One line.\nOne line.\nAnother one.",
         "মানুষ মানুষের জন্য।\nজীবন জীবনের জন্য।", "我们走。你们来。我们走。",
         "- a\n- b\n\nhttps://x.example/y\n...", "\n".join(f"Line {i % 7} is said again and again, number {i % 5}."
                                                           for i in range(60)),
         "ภาษาไทยไม่มีช่องว่าง ภาษาไทยไม่มีช่องว่าง", "שָׁלוֹם עוֹלָם", "x" * 5000]


def slow_ngrams(words):
    """The definition, word by word."""
    total, out = max(1, sum(map(len, words))), {}
    for n in (2, 3, 4, 5, 6, 7, 8, 9, 10):
        grams = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        if n < 5:
            best = max(counts.values(), default=0)
            size = max((sum(map(len, g)) for g, k in counts.items() if k == best), default=0)
            out[f"top_{n}"] = min(1.0, best * size / total) if best > 1 else 0.0
        else:
            seen, again = set(), set()
            for i, gram in enumerate(grams):
                again |= set(range(i, i + n)) if gram in seen else set()
                seen.add(gram)
            out[f"dup_{n}"] = sum(len(words[i]) for i in again) / total
    return out


@pytest.mark.parametrize("seed", range(12))
def test_ngrams_equal_the_definition(seed):
    rng = random.Random(seed)
    words = "abc def ghij k"[:2 + 4 * (seed % 4)].split() + ["w" * seed]
    drawn = " ".join(rng.choice(words) for _ in range(rng.randint(1, 300)))
    for text in (drawn, TEXTS[seed]):
        found = measure.measures(text)
        for name, value in slow_ngrams(measure.WORD.findall(text)).items():
            assert abs(found[name] - value) < 1e-9, (name, text[:80])


def slow_words(text):
    """(length, whether a letter is in it) of every word by the pattern that defines one."""
    return [(len(w), bool(regex.search(r"\p{L}", w))) for w in measure.WORD.findall(text)]


def test_fast_words_equal_the_definition():
    """Text of all scripts, and any code points in any order, marks where they do not belong among them."""
    rng = random.Random(0)
    kinds = ["ab", "й", "ไทย", "ั่", "文字", "かな", "́̈", "ِّ", "नि", "7٣", " ", "-", "\U000E0101", "\U00020000",
             "\U00031350", "𝒜"]
    texts = [*TEXTS, *("".join(rng.choices(kinds, k=40)) for _ in range(300)),
             *("".join(chr(rng.choice((rng.randrange(0x3000), rng.randrange(0xD800), rng.randrange(0xE000, 0x32400),
                                       rng.randrange(0xE0100, 0xE01F0)))) for _ in range(60)) for _ in range(300))]
    for text in texts:
        keys, lengths, lettered = measure.find_words(*measure.classes_of(text))
        assert list(zip(lengths.tolist(), lettered.tolist())) == slow_words(text), ascii(text)
        words = measure.WORD.findall(text)
        # a key is a word's
        assert len(set(zip(words, keys.tolist()))) == len(set(words)) == len(set(keys.tolist())), ascii(text)
        symbols = regex.findall(measure.CLASSES[measure.SYMBOL], text, regex.V1)
        assert (measure.classes_of(text)[1] & measure.SYMBOL != 0).sum() == len(symbols)


def test_words_keep_their_marks():
    """Python's own word characters leave out combining marks, and would cut the first of these into five."""
    for text, words in (("বাংলাদেশের মানুষ", 2), ("नेपालको राजधानी", 2), ("שָׁלוֹם עוֹלָם", 2), ("اللُّغَةُ", 1),
                        ("天地玄黄", 4), ("カタカナ", 4), ("don't", 2), ("ไทย", 3)):
        assert len(measure.WORD.findall(text)) == words, text


@pytest.mark.parametrize("text", TEXTS)
def test_measures_are_shares(text):
    found = measure.measures(text)
    whole = {"chars", "words", "mean_word", "longest_word", "marks", "newlines"}
    assert list(found) == list(measure.measures("")) and all(0 <= v <= 1 for k, v in found.items() if k not in whole)


def test_masking():
    rest = "not 10.0.0.1 nor version 1.2.3.4.5 nor 999.1.1.1."
    doc = Document(f"Write to anna.k@mail.example.org or Ваня@почта.рф, server 8.8.8.8, {rest}")
    assert clean.mask(doc) is None
    assert doc.text == f"Write to name@example.org or name@example.org, server 192.0.2.1, {rest}"


# ---------------------------------------------------------------------- duplicates

def keys_of(texts):
    return np.stack([dedup.exact_key(t) for t in texts]), np.stack([dedup.signature(t)
                                                                    for t in texts]), np.array([len(t) for t in texts])


def prose(rng, n):
    return [rng.choice(VOCABULARY) for _ in range(n)]


VOCABULARY = ["".join(random.Random(i).choices("abcdefghij", k=6)) for i in range(5000)]


def similar(rng, share, n=300):
    """Two texts of n words whose 5-word shingles have a Jaccard similarity of `share`."""
    words = prose(rng, n)
    shared = 2 * (n - 4) * share / (1 + share)
    cut = n - 4 - round(shared)
    return " ".join(words), " ".join(words[:n - cut] + prose(rng, cut))


@pytest.mark.parametrize("share, least, most", [(0.3, 0, 0), (0.4, 0, 0.02), (0.8, 0.85, 1), (0.9, 0.98, 1)])
def test_near_duplicates_are_caught_by_similarity(share, least, most):
    """The 14 bands of 8 catch 0.92 at 0.8 and all at 0.9; agreement of the signatures keeps 0.4 apart (the bands alone
    join 1 in 100).
    """
    rng = random.Random(0)
    texts = [t for _ in range(120) for t in similar(rng, share)]
    head = dedup.cluster(*keys_of(texts))
    found = (head[::2] == head[1::2]).mean()
    assert least <= found <= most


def test_clusters_do_not_depend_on_order():
    """Whatever the order, the same texts stay: of each cluster the longest."""
    rng = random.Random(1)
    texts = [t for _ in range(40) for t in similar(rng, 0.9)] + ["A short one."] * 3
    texts += [t + " more" for t in texts[:20]] + [t.upper() for t in texts[:10]]
    answers = []
    for seed in range(3):
        order = list(range(len(texts)))
        random.Random(seed).shuffle(order)
        mixed = [texts[i] for i in order]
        head = dedup.cluster(*keys_of(mixed))
        assert (head[head] == head).all()
        answers.append(sorted({len(mixed[i]) for i in head}))
        for i, h in enumerate(head):
            assert len(mixed[h]) >= len(mixed[i])
    assert answers[0] == answers[1] == answers[2]


def test_exact_duplicates_keep_the_first():
    texts = ["Hello  World", "hello\nworld ", "Hello, world", "Hello World"]
    exact, _, chars = keys_of(texts)
    assert dedup.cluster(exact, None, chars * 0).tolist() == [0, 0, 2, 0]
    assert dedup.cluster(exact[:0], None, chars[:0]).tolist() == []


def test_words_of_an_evaluation_set():
    question = "Which of the nine bridges over the river was built by the weavers of the old town in 1874?"
    step = decontaminate.Decontaminate([("belebele", question), ("short", "Six words are enough for this"),
                                        ("tiny", "Yes")])
    other = ("The weavers built a bridge. It has stood for a long time, and people cross it on their way to work "
             "every day.")
    assert step(Document(other)) is None and step(Document("Yes")) is None
    assert step(Document(f"{other} {question.upper()} {other}")) == "evaluation: belebele"
    assert step(Document(f"Note: six words are enough for THIS. {other}")) == "evaluation: short"
    assert decontaminate.Decontaminate([])(Document(question)) is None


# ---------------------------------------------------------------------- bitext

RULES = [("A house.", "Ein Haus.", True), ("Room 12, floor 3.", "Stock 3, Zimmer 12.", True),
         ("Hi.", "Сәлем, достым.", "lengths"),
         ("", "Ein Haus.", "empty"), ("A house.", "  ", "empty"), ("OK computer", " ok COMPUTER", "copy"),
         ("Yes.", "Ja, das ist wahr und noch viel mehr.", "lengths"), ("It is 12.", "Es ist 13.", "numbers"),
         ("It is twelve.", "Es ist 12 Uhr.", "numbers"), ("It was 1998.", "यो १९९८ थियो।", True),
         ("It was 1998.", "यो १९९९ थियो।", "numbers"), ("你好吗", "How are you", True)]


@pytest.mark.parametrize("x, y, wanted", RULES)
def test_rules(x, y, wanted):
    answer = bitext.filter_pair(Document(x, more={"target": y}), max_ratio=4.0)
    assert answer is None if wanted is True else (answer.startswith("pair") and wanted in answer)


def test_rules_strip_both_sides():
    doc = Document(" A house. ", more={"target": "\tEin Haus. "})
    assert bitext.filter_pair(doc, max_ratio=4.0) is None and (doc.text, doc.more["target"]) == ("A house.",
                                                                                                 "Ein Haus.")


def test_templates():
    """A to K; each names the target language and holds both sentences, the source first."""
    assert list(translation_templates.TEMPLATES) == list("ABCDEFGHIJK")
    rendered = {k: t.format(src="English", tgt="Kazakh", x="SOURCE", y="TARGET") for k,
                t in translation_templates.TEMPLATES.items()}
    assert len(set(rendered.values())) == 11
    for text in rendered.values():
        assert text.count("SOURCE") == text.count("TARGET") == 1 and text.index("SOURCE") < text.index("TARGET")
        assert "Kazakh" in text and "{" not in text


def test_every_template_is_used_in_both_directions():
    used = {}
    for i in range(2000):
        x, y = f"source {{x}} {i}", f"target {i}"  # braces in a sentence are no slots
        doc = Document(x, more={"target": y})
        assert translation_templates.format_pair(doc, "English", "Kazakh") is None
        forms = {t.format(src=a, tgt=b, x=p, y=q): (k, a) for k, t in translation_templates.TEMPLATES.items()
                 for a, b, p, q in (("English", "Kazakh", x, y), ("Kazakh", "English", y, x))}
        used.setdefault(forms[doc.text], []).append(i)
        again = Document(x, more={"target": y})
        translation_templates.format_pair(again, "English", "Kazakh")
        assert again.text == doc.text
    assert len(used) == 22
    # 91 each, within 5 sigma
    assert all(50 < len(v) < 140 for v in used.values()), {k: len(v) for k, v in used.items()}


def pair_rows(path):
    return [(d.text, d.more.get("target"), d.line, d.reason) for d in bitext_files.read_pairs(path)]


def test_pairs_from_tsv_and_jsonl(tmp_path):
    tsv = tmp_path / "a.tsv"
    tsv.write_text("A\tB\thttps://x.example\tclean\nno target\nC\tD\n")
    rows = pair_rows(tsv)
    assert rows[0] == ("A", "B", 1, None) and rows[2] == ("C", "D", 3, None)
    assert rows[1][2] == 2 and rows[1][3].startswith("no pair")
    assert next(iter(bitext_files.read_pairs(tsv))).url == "https://x.example"
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"text": "A", "target": "B"}\n{"text": "A"}\n{"text": "A", "target": 5}\n{"target": "B"}\n'
                     'not json\n')
    reasons = [r[3] and r[3].split(":")[0] for r in pair_rows(lines)]
    assert reasons == [None, "no pair", "no pair", "no pair", "not JSON"]


def test_lone_surrogate_on_the_target_side(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "A house.", "target": "Ein \\ud800 Haus."}\n')
    doc, = bitext_files.read_pairs(path)
    assert doc.reason and doc.reason.startswith("lone surrogate")


def test_moses_pairs(tmp_path):
    a, b = tmp_path / "c.en", tmp_path / "c.kk"
    a.write_text("one\ntwo\nthree\n")
    b.write_bytes(b"bir\n" + b"\xff\n" + "üsh\n".encode())
    rows = pair_rows(f"{a}|{b}")
    assert rows[0] == ("one", "bir", 1, None) and rows[2] == ("three", "üsh", 3, None)
    assert rows[1][2] == 2 and rows[1][3].startswith("not UTF-8")


def test_misaligned_moses_files(tmp_path):
    a, b = tmp_path / "c.en", tmp_path / "c.kk"
    a.write_text("one\ntwo\n")
    b.write_text("bir\neki\nüsh\n")
    for pair in (f"{a}|{b}", f"{b}|{a}"):  # in both directions: every pair behind a missing line would be wrong
        with pytest.raises(ValueError, match="c.kk has 3 lines, .*c.en has 2; Moses files must be aligned|"
                                             "c.en has 2 lines, .*c.kk has 3; Moses files must be aligned"):
            list(bitext_files.read_pairs(pair))
