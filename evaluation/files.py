"""Rows of a benchmark from the file that holds them, in the shapes benchmarks are published in.

.jsonl, .json (a list, {"data": [...]}, SQuAD's articles, or lines), .csv, .tsv, .parquet, plain lines; .gz of any of the texts.
"""
import csv
import functools
import gzip
import io
import json
import re
from pathlib import Path

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".dev", ".devtest")
SPLITS = {"val": ("val", "validation", "valid", "dev"), "devtest": ("devtest", "test")}  # words in a path; else itself
ALL = {"train", "val", "validation", "valid", "dev", "test", "devtest", "eval"}


def find(data, folders, words, split, plain=True):
    """The files of a split: below data/FOLDER, with each of words in the path ("a|b": a, where that finds none b; "=a": a folder
    or the file is called so) and the split's.

    plain: a path without any split's word serves where none has the right one. Of several the shortest path counts, or all parts
    -00000-of-0000N of one. Returns a list, empty where nothing fits.
    """
    found = [p for folder in folders for p in sorted((Path(data) / folder).rglob("*")) if suffix(p) in SUFFIXES
             and p.name.lower() != "readme.txt"]
    base = len(Path(data).parts)

    def has(p, word):
        if not word:
            return True
        if word[:1] == "=":
            return word[1:] in (*p.parts[base:-1], p.name.split(".")[0])
        return re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", "/".join(p.parts[base + 1:]), re.I)

    for word in words:
        found = next((some for some in ([p for p in found if has(p, w)] for w in word.split("|")) if some), [])
    fits = [[p for p in found if has(p, w)] for w in SPLITS.get(split, (split,))]
    found = next((some for some in fits if some), [p for p in found if plain and not any(has(p, w) for w in ALL)])
    if not found:
        return []
    best = min(found, key=lambda p: (len(str(p)), str(p)))
    parts = re.sub(r"-\d{5}-of-", "-*-of-", best.name)
    return sorted(best.parent.glob(parts)) if parts != best.name else [best]


def suffix(path):
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def read(path, columns=None):
    """[(line number, row or None, what is wrong with it)] of a file. columns: names where a .csv or .tsv has no header."""
    return read_version(path, columns, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)  # a file may hold many tasks (57 subjects)
def read_version(path, columns, _):
    kind = suffix(path)
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: unknown format; expected {', '.join(SUFFIXES[:6])}")
    if kind == ".parquet":
        try:
            import pyarrow.parquet
        except ImportError:
            raise ValueError(f"{path}: parquet needs a package: pip install pyarrow") from None
        return [(i, row, None) for i, row in enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1)]
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path} is not UTF-8 at byte {e.start}") from None
    if kind == ".json":
        try:
            return from_json(json.loads(text))
        except json.JSONDecodeError:
            kind = ".jsonl"  # a row a line all the same
    if kind == ".jsonl":
        return [json_row(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if kind in (".csv", ".tsv"):
        return table(text, kind, columns)
    return [(i, {"text": line}, None) for i, line in enumerate(text.split("\n"), 1) if line.strip()]


def json_row(number, line):
    try:
        row = json.loads(line)
    except json.JSONDecodeError as e:
        return number, None, f"not JSON: {e.msg} at column {e.colno}"
    return (number, row, None) if isinstance(row, dict) else (number, None, "not an object")


def from_json(whole):
    """Rows of a whole document; SQuAD's questions get their paragraph's context."""
    items = whole["data"] if isinstance(whole, dict) and "data" in whole else whole if isinstance(whole, list) else [whole]
    if items and isinstance(items[0], dict) and "paragraphs" in items[0]:
        items = [{**question, "context": paragraph["context"]}
                 for article in items for paragraph in article["paragraphs"] for question in paragraph["qas"]]
    return [(i, row, None) if isinstance(row, dict) else (i, None, "not an object") for i, row in enumerate(items, 1)]


def table(text, kind, columns):
    """Rows by column name. A .csv may be cut at semicolons; a file whose first line names none of `columns` has no header."""
    first = text.split("\n", 1)[0]
    csv.field_size_limit(1 << 30)
    if kind == ".tsv" and len({line.count("\t") for line in text.split("\n") if line}) == 1:  # quotes are mostly text there
        lines = enumerate(([unquoted(cell) for cell in line.rstrip("\r").split("\t")] for line in text.split("\n")), 1)
    else:
        cut = "\t" if kind == ".tsv" else ";" if first.count(";") > first.count(",") else ","
        found = csv.reader(io.StringIO(text, newline=""), delimiter=cut)
        lines = ((found.line_num, cells) for cells in found)
    out, header = [], None
    for number, cells in lines:
        if not any(cells):
            continue
        if header is None:
            header = cells if columns is None or set(columns) & set(cells) else list(columns)
            if header is cells:
                continue
        wrong = None if len(cells) == len(header) else f"{len(cells)} cells, the header has {len(header)}"
        out.append((number, None if wrong else dict(zip(header, cells)), wrong))
    return out


def unquoted(cell):
    """A cell whose inner quotes are doubled was quoted by a program; other quotes are the author's."""
    inner = cell[1:-1]
    return inner.replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', cell) and '""' in inner else cell
