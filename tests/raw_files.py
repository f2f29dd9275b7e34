"""Small raw files of every format that prepare.py reads, and a reader of all that is in them."""
import bz2
import gzip
import json
import lzma

from test_prepare import document, jsonl, sentence

from corpus import bitext_files, chat, read

ROWS = [{"text": document("en", i), "url": f"https://a.example/{i}"} for i in range(40)]
PAIRS = "".join(f"{sentence('en', i)}\t{sentence('kk', i)}\n" for i in range(60))
CHATS = [{"messages": [{"role": "user", "content": sentence("en", i)}, {"role": "assistant", "content": "Yes."}]}
         for i in range(40)]


def zst(raw):
    import zstandard
    return zstandard.ZstdCompressor().compress(raw)


def parquet(rows):
    import io

    import pyarrow
    import pyarrow.parquet
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=10)
    return file.getvalue()


def records(kind, texts):
    head = "WARC/1.0\r\nWARC-Type: {}\r\nWARC-Target-URI: https://a.example/\r\nContent-Length: {}\r\n\r\n"
    return "".join(head.format(kind, len(text.encode())) + text + "\r\n\r\n" for text in texts).encode()


def tmx():
    unit = '<tu><tuv xml:lang="en"><seg>{}</seg></tuv><tuv xml:lang="kk"><seg>{}</seg></tuv></tu>\n'
    units = "".join(unit.format(*line.split("\t")) for line in PAIRS.splitlines())
    return f'<?xml version="1.0" encoding="utf-8"?>\n<tmx version="1.4"><body>\n{units}</body></tmx>\n'


PAGE = ("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
        "<html><body><article><p>{}</p></article></body></html>")
PAGES = [PAGE.format("</p><p>".join(row["text"] for row in ROWS[i:i + 4])) for i in range(9)]
LINES = jsonl(ROWS).encode()
CONTENT = {
    "a.jsonl": LINES, "a.jsonl.gz": gzip.compress(LINES), "a.jsonl.bz2": bz2.compress(LINES),
    "a.jsonl.xz": lzma.compress(LINES), "a.jsonl.zst": zst(LINES), "a.json": json.dumps(ROWS).encode(),
    "a.txt": "\n\n".join(row["text"] for row in ROWS).encode(),
    "utf16.txt": "\n\n".join(row["text"] for row in ROWS).encode("utf-16"),
    "a.parquet": parquet(ROWS), "a.wet": records("conversion", [row["text"] for row in ROWS]),
    "a.warc": records("response", PAGES),
    "pairs.tsv": PAIRS.encode(), "pairs.tmx": tmx().encode(), "pairs.tmx.bz2": bz2.compress(tmx().encode()),
    "chats.jsonl": jsonl(CHATS).encode(), "chats.json": json.dumps(CHATS).encode(), "chats.parquet": parquet(CHATS)}


def put(folder, name):
    path = folder / name
    path.write_bytes(CONTENT[name])
    return path


FORMATS = {name: lambda folder, name=name: put(folder, name) for name in CONTENT}


def read_all(path):
    """(documents without a problem, with one) of a file; ValueError names the file."""
    try:
        if path.name.startswith("pairs"):
            documents = bitext_files.read_pairs(str(path), "en", "kk")
        elif path.name.startswith("chats"):
            documents = chat.read_chats(str(path), "chat")
        else:
            documents = read.read_documents(path)
        reasons = [doc.reason for doc in documents]
    except ValueError as e:
        assert str(path) in str(e), f"{e} does not name {path}"
        return 0, 1
    return reasons.count(None), len(reasons) - reasons.count(None)
