"""corpus/files, warc, pages, read: bytes become text as their publisher meant; what cannot is counted by name."""
import bz2
import gzip
import json
import sys
import tracemalloc
import types
import zlib

import pytest

from corpus import clean, decontaminate, files, json_array, measure, parquet, read, shards, sources, warc
from corpus.read import Document

BULGARIAN = "Първи ред.\n\nСофия е столицата на България."


def texts(path, unit="paragraph"):
    return [(doc.text, doc.reason) for doc in read.read_documents(path, unit)]


# ---------------------------------------------------------------------- byte order marks and declared encodings

@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gz", "bz2"])
def test_byte_order_marks(tmp_path, codec, pack):
    path = tmp_path / ("bg.txt" + {gzip.compress: ".gz", bz2.compress: ".bz2"}.get(pack, ""))
    path.write_bytes(pack(BULGARIAN.encode(codec)))
    assert texts(path) == [("Първи ред.", None), ("София е столицата на България.", None)]


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_offsets_are_those_of_the_file(tmp_path, codec):
    """Big-endian, JSON Lines, Windows line ends: what is at an offset is the row."""
    mark = "\ufeff".encode(codec)
    rows = [json.dumps({"text": f"ред {i} 😀"}, ensure_ascii=False) for i in range(3)]
    whole = mark + "".join(f"{row}\r\n" for row in rows).encode(codec)
    (tmp_path / "a.jsonl").write_bytes(whole)
    docs = list(read.read_documents(tmp_path / "a.jsonl"))
    assert [doc.text for doc in docs] == [f"ред {i} 😀" for i in range(3)]
    assert all(whole[doc.offset:].startswith(row.encode(codec)) for doc, row in zip(docs, rows))


@pytest.mark.parametrize("text", [BULGARIAN, "The old bridge.\n\nA second paragraph.", "Η παλιά γέφυρα.\n\nΤέλος."])
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_refused_by_name(tmp_path, text, codec):
    (tmp_path / "a.txt").write_bytes(text.encode(codec))
    (_, reason), = texts(tmp_path / "a.txt")
    assert reason.startswith("unreadable from here on: it looks like UTF-16 without a byte order mark")


def test_a_few_nul_bytes_are_no_utf16(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\x00 two\n\n" + b"\x00" * 9 + b"three\n")
    assert len(texts(tmp_path / "a.txt")) == 2


def test_utf16_that_is_cut(tmp_path):
    (tmp_path / "a.txt").write_bytes(BULGARIAN.encode("utf-16")[:-1])
    assert texts(tmp_path / "a.txt")[-1][1].startswith("unreadable from here on: not utf-16")


@pytest.mark.parametrize("codec, label", [("cp1251", "windows-1251"), ("iso8859-5", "ISO-8859-5"),
                                          ("koi8-r", "KOI8-R")])
def test_the_encoding_of_an_xml_declaration(tmp_path, codec, label):
    (tmp_path / "a.txt").write_bytes(f'<?xml version="1.0" encoding="{label}"?>\n{BULGARIAN}'.encode(codec))
    assert texts(tmp_path / "a.txt", "line")[1:] == [(line, None) for line in BULGARIAN.split("\n\n")]


def test_an_unknown_declared_encoding_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b'<?xml version="1.0" encoding="klingon"?>\nx')
    assert "unknown encoding 'klingon'" in texts(tmp_path / "a.txt")[0][1]


# ---------------------------------------------------------------------- pages of WARC files

def find_page(body, *headers, kind="response"):
    http = b"HTTP/1.1 200 OK\r\n" + "\r\n".join(headers).encode() + b"\r\n\r\n" + body
    return warc.find_page({"warc-type": kind}, http)


def chunked(body, n):
    parts = [body[i:i + n] for i in range(0, len(body), n)]
    return b"".join(b"%x;x=1\r\n" % len(part) + part + b"\r\n" for part in parts) + b"0\r\n\r\n"


PAGE = "<html><body><p>Não, não há pão. Ela não quer.</p></body></html>"
HTML = "Content-Type: text/html; charset=utf-8"


@pytest.mark.parametrize("media", ["text/html", "application/xhtml+xml", "Text/HTML ;charset=UTF-8"])
@pytest.mark.parametrize("size", [1, 7, 128, 10_000])
def test_chunked_pages(media, size):
    page, problem = find_page(chunked(PAGE.encode(), size), f"Content-Type: {media}", "Transfer-Encoding: chunked")
    assert (page, problem) == (PAGE, None)


def test_a_body_that_only_claims_to_be_encoded():
    """Common Crawl stores decoded bodies beside the headers as they came."""
    for header in ("Transfer-Encoding: chunked", "Content-Encoding: gzip", "Content-Encoding: br",
                   "Content-Encoding: deflate"):
        assert find_page(PAGE.encode(), HTML, header) == (PAGE, None)


RAW_DEFLATE = zlib.compressobj(wbits=-15)
DEFLATED = RAW_DEFLATE.compress(PAGE.encode()) + RAW_DEFLATE.flush()


GZIPPED = gzip.compress(PAGE.encode(), mtime=0)  # without the time, which would be in the name of a test


@pytest.mark.parametrize("encoding, body", [
    ("gzip", GZIPPED), ("x-gzip", GZIPPED),
    ("deflate", zlib.compress(PAGE.encode())), ("deflate", DEFLATED), ("identity", PAGE.encode()),
    ("gzip, gzip", gzip.compress(GZIPPED, mtime=0))])
def test_content_encodings_inside_chunks(encoding, body):
    headers = HTML, f"Content-Encoding: {encoding}", "Transfer-Encoding: chunked"
    assert find_page(chunked(body, 9), *headers) == (PAGE, None)


def test_encodings_that_cannot_be_undone_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "brotli", None)
    missing = "page: encoding br needs a package: pip install brotli"
    assert find_page(b"\x8b\x01", HTML, "Content-Encoding: br") == (None, missing)
    assert find_page(b"\x8b\x01", HTML, "Content-Encoding: lzma") == (None, "page: encoding 'lzma' is not known")
    _, problem = find_page(gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20, HTML, "Content-Encoding: gzip")
    assert problem.startswith("page: damaged compression")


def brotli_of(raw):
    return pytest.importorskip("brotli").compress(raw)


def zstd_of(raw):
    return pytest.importorskip("zstandard").ZstdCompressor().compress(raw)


PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli_of, "zstd": zstd_of}


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_page_that_expands_without_end(monkeypatch, encoding):
    """A few hundred bytes to 64 MiB: no more is made of them than a page may have."""
    monkeypatch.setattr(files, "MAX_LINE", 1 << 20)
    body = PACKERS[encoding](bytes(1 << 26))
    tracemalloc.start()
    _, problem = find_page(body, HTML, f"Content-Encoding: {encoding}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problem == "page: a page of more than 1 MiB" and peak < 8 << 20


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_newer_content_encodings(monkeypatch, encoding):
    """Alone, twice, cut (as far as it goes, like gzip), damaged, at the limit and one byte above it."""
    pack, header = PACKERS[encoding], f"Content-Encoding: {encoding}"
    markup = (PAGE * 3000).encode()
    body = pack(markup)
    assert find_page(body, HTML, header) == (markup.decode(), None)
    assert find_page(pack(body), HTML, f"{header}, {encoding}") == (markup.decode(), None)
    text = "".join(chr(0x4e00 + i * i % 20011) for i in range(50_000))
    cut, problem = find_page(pack(text.encode())[:-9], HTML, header)
    assert problem is None and text.startswith(cut.rstrip("\ufffd"))
    _, problem = find_page(b"\xff\xfe\xfd" * 99, HTML, header)
    assert problem.startswith("page: damaged compression")
    monkeypatch.setattr(files, "MAX_LINE", 1 << 20)
    assert find_page(pack(b"<p>" + b"x" * ((1 << 20) - 3)), HTML, header)[1] is None
    assert "more than 1 MiB" in find_page(pack(b"<p>" + b"x" * ((1 << 20) - 2)), HTML, header)[1]


def test_frames_of_zstd_that_follow_each_other():
    body = zstd_of(PAGE[:20].encode()) + zstd_of(PAGE[20:].encode())
    assert find_page(body, HTML, "Content-Encoding: zstd") == (PAGE, None)


def test_a_brotli_without_limits_is_refused(monkeypatch):
    class Decompressor:
        def process(self, body):
            return PAGE.encode()

    monkeypatch.setitem(sys.modules, "brotli", types.SimpleNamespace(Decompressor=Decompressor, error=OSError))
    needed = "page: encoding br needs brotli 1.2 or later: pip install -U brotli"
    assert find_page(b"\x8b\x01", HTML, "Content-Encoding: br") == (None, needed)


@pytest.mark.parametrize("codec, header, meta", [
    ("iso-8859-1", "ISO-8859-1", ""), ("cp1252", "iso-8859-1", ""), ("utf-8", "", ""), ("cp1252", "", "windows-1252"),
    ("utf-8", "utf-8", "iso-8859-1"),          # the header counts before <meta>, as in a browser
    ("iso-8859-15", "utf-8", "iso-8859-15"),   # unless the bytes contradict it
    ("utf-16", "iso-8859-1", ""),              # a byte order mark counts before all
    ("utf-8", "klingon", "")])
def test_the_charset_of_a_page(codec, header, meta):
    markup = PAGE.replace("<body>", f'<meta charset="{meta}"><body>' if meta else "<body>")
    page, _ = find_page(markup.encode(codec), "Content-Type: text/html" + (f"; charset={header}" if header else ""))
    assert page == markup


@pytest.mark.parametrize("codec, label, word", [("cp1251", "windows-1251", "сажень"), ("shift_jis", "x-sjis", "日本語"),
                                                ("euc_kr", "ks_c_5601-1987", "한국어"), ("gbk", "GB2312", "汉字"),
                                                ("cp874", "TIS-620", "ภาษาไทย")])
def test_charsets_of_other_scripts(codec, label, word):
    markup = f"<p>{word}</p>"
    assert find_page(markup.encode(codec), f"Content-Type: text/html; charset={label}") == (markup, None)


def test_a_page_without_a_charset_is_left_to_the_extractor():
    assert find_page("<p>não</p>".encode("cp1252"), "Content-Type: text/html")[0] == "<p>não</p>".encode("cp1252")


def warc_file(*records):
    out = b""
    for kind, media, body in records:
        if media:
            body = b"HTTP/1.1 200 OK\r\nContent-Type: " + media.encode() + b"\r\n\r\n" + body
        out += f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"
    return out


def test_every_record_is_a_document_or_skipped_by_type(tmp_path, monkeypatch):
    extractor = types.SimpleNamespace(extract=lambda page, deduplicate: page.removeprefix("<p>"))
    monkeypatch.setitem(sys.modules, "trafilatura", extractor)
    (tmp_path / "a.warc").write_bytes(warc_file(
        ("warcinfo", "", b"x"), ("request", "", b"GET /"), ("response", "text/html", b"<p>One."),
        ("response", "image/png", b"P"), ("response", "application/pdf", b"%PDF"), ("metadata", "", b"x"),
        ("response", "text/html; charset=utf-8", b"<p>Two.")))
    assert texts(tmp_path / "a.warc") == [
        ("", "skipped: record of type warcinfo"), ("", "skipped: record of type request"), ("One.", None),
        ("", "skipped: page of type image/png"), ("", "skipped: page of type application/pdf"),
        ("", "skipped: record of type metadata"), ("Two.", None)]


def test_one_huge_record_is_passed_over(tmp_path, monkeypatch):
    """The pages behind it are read; a length that is no number still ends the file."""
    monkeypatch.setattr(files, "MAX_LINE", 1 << 20)
    head = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: %d\r\n\r\n"
    records = [head % len(body) + body + b"\r\n\r\n" for body in (b"One.", b"x" * (3 << 20), b"Two.", b"y" * (2 << 20))]
    for pack, name in ((bytes, "a.wet"), (gzip.compress, "a.wet.gz")):
        (tmp_path / name).write_bytes(pack(b"".join(records)))
        assert texts(tmp_path / name) == [("One.", None), ("", "record longer than 1 MiB"), ("Two.", None),
                                          ("", "record longer than 1 MiB")]
    (tmp_path / "b.wet").write_bytes(records[0] + records[1][:-9] + records[2])
    assert texts(tmp_path / "b.wet")[-1][1].startswith("unreadable from here on: record 3 does not begin with WARC/")


# ---------------------------------------------------------------------- rows as they are published

def row(**fields):
    return json.dumps(fields, ensure_ascii=False)


@pytest.mark.parametrize("line, url", [
    (row(content="A text.", warc_headers={"warc-target-uri": "https://casino.example"}, metadata={"language": "kk"}),
     "https://casino.example"),  # OSCAR 22.01, 23.01
    (row(f="x.gz", u="https://h.example", c="text/html", lang=["kk"], text="A text."), "https://h.example"),  # HPLT
    (row(id=1, document_lang="kk", scores=[0.9], text="A text.", url="https://i.example"), "https://i.example"),
    (row(text="A text.", meta={"url": "https://m.example"}), "https://m.example"),
    (row(text="A text.", content="Another.", URL="https://c.example"), "https://c.example"),
    (row(text="A text.", url=None), "")])
def test_rows_of_web_corpora(tmp_path, line, url):
    for name in ("a.jsonl", "a.json"):
        (tmp_path / name).write_text(line + "\n", encoding="utf-8")
        doc, = read.read_documents(tmp_path / name)
        assert (doc.text, doc.url, doc.reason) == ("A text.", url, None)


def test_a_row_without_text_names_its_fields(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x", "id": 1}\n')
    (_, reason), = texts(tmp_path / "a.jsonl")
    assert reason.startswith("no text: ") and reason.endswith("or 'content'; its fields are body, id")


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_and_json_lines_named_json(tmp_path, indent):
    rows = [{"text": "One."}, {"text": "Two."}, 3]
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=indent))
    (tmp_path / "lines.json.bz2").write_bytes(bz2.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    for name in ("array.json", "lines.json.bz2"):
        docs = list(read.read_documents(tmp_path / name))
        found = [(d.text, d.line, bool(d.reason)) for d in docs]
        assert found == [("One.", 1, False), ("Two.", 2, False), ("3", 3, True)]
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=indent)[:-1])
    assert texts(tmp_path / "array.json")[-1][1].startswith("unreadable from here on: not JSON: Expecting ','")


ARRAYS = [[], [1, -2.5e+3, 10 ** 30, True, None, "é\U0001f600\ud83d\n\"]", [], {}, [[{"a": [1, {"б": "]},"}]}]]],
          [{"text": "One."}, {"text": "Two ."}]]
BROKEN = ["[", "[1", "[1,", "[1,]", "[1 2]", "[1]]", "[1]\n\n 2", '[{"a": 1}{"b": 2}]', '[{"a": 1},\n {"b" 2}]', "[01]",
          '["a', '["a\n"]', '["\\x"]', "[tru]", '[{"a": 1,}]', "[1.]", "[-]", '[{"a": 1},\n\n {"a": [1, 2}]', "", "tru"]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("indent, ascii", [(None, True), (1, False), (9, True)])
@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_streamed_arrays_are_those_of_json(tmp_path, monkeypatch, codec, indent, ascii, block):
    monkeypatch.setattr(json_array, "BLOCK", block)
    for rows in ARRAYS if ascii else ARRAYS[::2]:  # UTF-8 has no lone surrogate
        text = " " * 5000 + json.dumps(rows, indent=indent, ensure_ascii=ascii) + "\r\n"
        (tmp_path / "a.json").write_bytes(text.encode(codec))
        assert list(json_array.read_array(tmp_path / "a.json")) == [(n, row, None, None)
                                                                    for n, row in enumerate(rows, 1)]


@pytest.mark.parametrize("block", [1, 5, 1 << 18])
@pytest.mark.parametrize("text", BROKEN)
def test_broken_arrays_are_named_by_the_same_place(tmp_path, monkeypatch, text, block):
    monkeypatch.setattr(json_array, "BLOCK", block)
    padded = " " * 4095 + "\n" + text
    with pytest.raises(json.JSONDecodeError) as e:
        json.loads(padded)
    (tmp_path / "a.json").write_text(padded)
    *rows, (number, row, offset, problem) = json_array.read_array(tmp_path / "a.json")
    assert (number, row, problem) == (len(rows) + 1, None, f"unreadable from here on: not JSON: {e.value}")
    assert 4096 <= offset <= e.value.pos


@pytest.mark.parametrize("block", [1, 2, 3])
def test_numbers_that_a_block_cuts(tmp_path, monkeypatch, block):
    monkeypatch.setattr(json_array, "BLOCK", block)
    text = " " * 4096 + "[1e+5,12.5, -1.25E-7,  10, 1.5e1]"
    (tmp_path / "a.json").write_text(text)
    assert [row for _, row, *_ in json_array.read_array(tmp_path / "a.json")] == json.loads(text)


def test_an_error_is_no_record_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(json_array, "MAX_RECORD", 1000)
    (tmp_path / "a.json").write_text('[{"text": "One."}, {"text" 1}' + ',\n{"text": "Two."}' * 9999)
    assert texts(tmp_path / "a.json")[1:] == [
        ("", "unreadable from here on: not JSON: Expecting ':' delimiter: line 1 column 28 (char 27)")]


def test_arrays_that_are_not_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b'[{"text": "One."},\n {"text": "\xc3\xa9\xff"}]')
    good, bad = read.read_documents(tmp_path / "a.json")
    assert good.text == "One." and (bad.line, bad.offset) == (2, 20)
    assert bad.reason == "unreadable from here on: line 2: not UTF-8 at byte 13"
    raw = gzip.compress(json.dumps([{"text": "One."}, {"text": "x"}]).encode())
    (tmp_path / "a.json.gz").write_bytes(raw[:-9])
    assert texts(tmp_path / "a.json.gz")[-1][1].startswith("unreadable from here on: Compressed file ended")


def test_the_memory_for_a_large_array_is_flat(tmp_path):
    row = json.dumps({"text": "A line of it. " * 70})
    with gzip.open(tmp_path / "a.json.gz", "wt", compresslevel=1) as f:
        f.write(f"[{row}" + f", {row}" * 20_000 + "]")  # 20 MB in one line
    tracemalloc.start()
    assert sum(doc.reason is None for doc in read.read_documents(tmp_path / "a.json.gz")) == 20_001
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_json_array_without_end(tmp_path, monkeypatch):
    """Of a record that does not end no more is held than the bound; what came before it is kept."""
    monkeypatch.setattr(json_array, "MAX_RECORD", 1 << 20)
    (tmp_path / "a.json").write_text(json.dumps([{"text": "One."}, {"text": "x" * (8 << 20)}]))
    tracemalloc.start()
    found = texts(tmp_path / "a.json")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert found == [("One.", None), ("", "unreadable from here on: a record of more than 1 Mi characters; write one "
                                          "object per line (.jsonl)")]


@pytest.mark.parametrize("unit", ["file", "paragraph"])
def test_a_text_file_without_end_is_not_held(tmp_path, monkeypatch, unit):
    monkeypatch.setattr(files, "MAX_LINE", 1 << 20)
    (tmp_path / "a.txt").write_text("One.\n\n" * (unit == "paragraph") + ("x" * 999 + "\n") * 2000 + "\nTwo.\n")
    found = texts(tmp_path / "a.txt", unit)
    long = ("", "document longer than 1 MiB")
    assert found == ([long] if unit == "file" else [("One.", None), long, ("Two.", None)])


def test_parquet_is_refused_before_it_expands():
    class Chunk:
        path_in_schema, total_uncompressed_size = "text", 3 << 30

    class Group:
        num_columns = 1

        def column(self, _):
            return Chunk

    class Metadata:
        num_row_groups = 1

        def row_group(self, _):
            return Group()
    with pytest.raises(ValueError, match=r"column text of row group 0 expands to 3\.0 GiB"):
        parquet.check_chunks(Metadata())


def test_parquet_with_an_index_behind_its_dictionary(tmp_path, monkeypatch):
    """What one flipped byte can make of a column; pyarrow notices when the row is read, with an error of its own."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    damaged = pa.DictionaryArray.from_arrays(pa.array([0, 5], pa.int32()), pa.array(["One."]), safe=False)
    batch = pa.RecordBatch.from_arrays([damaged], ["text"])
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda self, **_: iter([batch]))
    pq.write_table(pa.table({"text": ["One."]}), tmp_path / "a.parquet")
    (_, row, _), (number, none, problem) = parquet.read_parquet(tmp_path / "a.parquet")
    assert row == {"text": "One."} and (number, none) == (2, None) and "unreadable from here on: index" in problem


def test_parquet_bomb(tmp_path, monkeypatch):
    """A value of 2 MiB, repeated 4,000 times in one dictionary page: each row is refused, none is held."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(files, "MAX_LINE", 1 << 20)
    pq.write_table(pa.table({"text": ["x" * (2 << 20)] * 400 + ["One."]}), tmp_path / "a.parquet", compression="zstd")
    found = texts(tmp_path / "a.parquet")
    assert found[-1] == ("One.", None) and set(found[:-1]) == {("", "row longer than 1 MiB")}


def test_zst_bomb_and_large_window(tmp_path, monkeypatch):
    zstandard = pytest.importorskip("zstandard")
    monkeypatch.setattr(files, "MAX_LINE", 1 << 20)
    (tmp_path / "a.txt.zst").write_bytes(zstandard.ZstdCompressor().compress(b"x" * (64 << 20) + b"\nOne.\n"))
    assert texts(tmp_path / "a.txt.zst", "line") == [("", "line longer than 1 MiB"), ("One.", None)]
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=28)
    (tmp_path / "b.txt.zst").write_bytes(zstandard.ZstdCompressor(compression_params=wide).compress(b"One.\n"))
    assert texts(tmp_path / "b.txt.zst", "line") == [("One.", None)]


# ---------------------------------------------------------------------- parts of a large file

@pytest.mark.parametrize("name, unit", [("a.jsonl", "line"), ("a.txt", "line"), ("a.txt", "paragraph"),
                                        ("a.tsv", "line")])
@pytest.mark.parametrize("size", [50, 333, 5000])
def test_parts_hold_the_same_documents(tmp_path, name, unit, size):
    lines = [f"line {i} {'é' * (i % 40)}" for i in range(200)]
    if name == "a.jsonl":
        lines = [row(text=line) if i % 9 else "" for i, line in enumerate(lines)]
    if unit == "paragraph":
        lines = [line if i % 3 else "" for i, line in enumerate(lines)]
    (tmp_path / name).write_text("\n".join(lines))
    whole = list(read.read_documents(tmp_path / name, unit))
    borders = read.find_borders(tmp_path / name, unit, size)
    assert (len(borders) > 3) == (size < 5000)
    parts = [list(read.read_documents(tmp_path / name, unit, a, b)) for a, b in zip(borders, [*borders[1:], None])]
    assert sum(parts, []) == whole and len(whole) > 60


def test_what_is_not_cut(tmp_path):
    (tmp_path / "a.txt").write_text("word\n" * 100)
    (tmp_path / "b.txt").write_bytes(("word\n" * 100).encode("utf-16"))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 10_000, 0, mtime=0))
    assert read.find_borders(tmp_path / "a.txt", "file", 50) == [0] == read.find_borders(tmp_path / "b.txt", "line", 50)
    assert read.find_borders(tmp_path / "c.jsonl.gz", "line", 50) == [0]
    assert len(read.find_borders(tmp_path / "a.txt", "line", 50)) > 5


# ---------------------------------------------------------------------- evaluation files

QUESTION = "Жители посёлка собрались у реки, чтобы вместе посадить молодые деревья и очистить берег."


@pytest.mark.parametrize("name, content", [
    ("q.json", json.dumps([{"question": QUESTION}])), ("q.json", json.dumps({"data": [{"q": QUESTION}]}, indent=2)),
    ("q.json", json.dumps({"q": QUESTION}) + "\n" + json.dumps({"q": "x"})),
    ("q.jsonl", json.dumps({"a": {"b": [QUESTION]}})),
    ("q.csv", f'id,question\n1,"{QUESTION}"\n'), ("q.tsv", f"1\t{QUESTION}\n"), ("q.txt", QUESTION),
    ("q.devtest", QUESTION)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_formats_of_evaluation_files(tmp_path, name, content, pack):
    path = tmp_path / (name + (".gz" if pack is gzip.compress else ""))
    path.write_bytes(pack(content.encode()))
    step = decontaminate.Decontaminate((path.name, text) for text in decontaminate.read_texts(path))
    assert step(Document(f"Новости. {QUESTION} Конец.")) == f"evaluation: {path.name}"
    assert step.sequences[path.name] >= 1


@pytest.mark.parametrize("name, content", [("q.json", b"[{]"), ("q.jsonl", b'{"a": 1}\n{"b": '),
                                           ("q.txt", b"\xff\xfd not UTF-8"), ("q.csv", b"a,b\n\xff,c")])
def test_an_evaluation_file_that_cannot_be_read_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"evaluation: .*{name}, line \d: not "):
        list(decontaminate.read_texts(tmp_path / name))


# ---------------------------------------------------------------------- cleaning in all scripts

@pytest.mark.parametrize("text, wanted", [
    ("请将报名表发送至office@example.com并注明单位名称。", "请将报名表发送至name@example.org并注明单位名称。"),
    ("문의는 help@example.com으로 보내 주세요.", "문의는 name@example.org으로 보내 주세요."),
    ("詳細はinfo@example.co.jpまで。", "詳細はname@example.orgまで。"),
    ("ติดต่อinfo@example.comได้", "ติดต่อname@example.orgได้"),
    ("Ваня@почта.рф, josé@españa.example", "name@example.org, name@example.org"),
    ("a @ b, user@host, x@y.", "a @ b, user@host, x@y.")])
def test_masking_takes_only_the_address(text, wanted):
    doc = Document(text)
    clean.mask(doc)
    assert doc.text == wanted


CODE = "def f(x):\n    if x:\n        return 1\n    return 0"


@pytest.mark.parametrize("text, wanted", [
    (CODE, CODE), ("\n\n  - one\n    - two  \n", "  - one\n    - two"), ("a  \n\t b\t\n\n\n\nc ", "a\n\t b\n\nc"),
    ("　　段落。\n　　又一段。", "　　段落。\n　　又一段。")])
def test_indentation_stays(text, wanted):
    doc = Document(text)
    clean.repair(doc)
    assert doc.text == wanted
    clean.repair(doc)
    assert doc.text == wanted


@pytest.mark.parametrize("text, words", [("ខ្ញុំស្រឡាញ់ភាសាខ្មែរ។", 2), ("မြန်မာစကား။", 2), ("አማርኛ ቋንቋ ነው።", 3), ("བོད་སྐད།", 2),
                                         ("ພາສາລາວ.", 2), ("ⴰⵎⴰⵣⵉⵖ.", 1), ("Հայերեն լեզու։", 2)])
def test_full_stops_and_words_of_other_scripts(text, words):
    found = measure.measures(f"{text}\n{text}")
    assert found["full_stops"] == found["ends"] == 1 and found["symbols"] == 0
    assert found["words"] >= 2 * words and found["longest_word"] < 8
    assert measure.split_sentences(text + text) == [text, text]


def test_invisible_characters_are_no_symbols():
    text = "zero\u200bwidth\u200c and\u200d soft\u00adhyphens\u2060."
    assert measure.measures(text)["symbols"] == 0 < measure.measures("###")["symbols"]


def test_long_lines_are_cut_for_the_tokenizer():
    for line in ("汉字" * 40_000, "word " * 30_000, "x" * 100_000, "short"):
        pieces = list(shards.cut_line(line))
        assert "".join(pieces) == line and max(len(piece.encode()) for piece in pieces) <= shards.LONGEST_LINE
        assert len(pieces) < len(line.encode()) / shards.LONGEST_LINE * 2 + 1
    assert all(piece.endswith(" ") for piece in shards.cut_line("word " * 30_000))


def test_languages_that_the_identifier_does_not_know():
    pytest.importorskip("py3langid")
    known = clean.known_languages(True)
    assert {"kk", "th", "zh"} <= known and not {"hau", "mi", "yi", "kaz_Cyrl"} & known
    assert "kk" in clean.suggest_codes("kkz", known) and "en" in clean.suggest_codes("yi", known)


# ---------------------------------------------------------------------- names of sources

@pytest.mark.parametrize("name", ["..", ".", "", "work", "ranked", "a/b", "a\\b", "/tmp", "a\nb", " a", "x-valid",
                                  "Text", 7, None, "account.json"])
def test_names_of_sources_are_one_safe_path_component(name):
    source = dict(name=name, path="a.jsonl", category="c", language="en")
    assert sources.check_source(source, {}), name
    assert not sources.check_source(source | {"name": "web-kk.2"}, {})
