"""Files -> documents. Whatever cannot be read becomes a rejected document with file, line and byte; nothing is lost
silently.

The suffix names the format: .jsonl and .json (one object per line, or one array), .txt, .tsv, .wet (Common Crawl's
extracted text), .warc (pages, from which trafilatura extracts the main text), .parquet; all but the last may be
compressed (.gz, .bz2, .xz, .zst). A row's text is in its field `text`, or `content` (OSCAR since 22.01); its address
in one of URLS.
"""
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corpus import files, parquet, warc
from corpus.files import read_lines
from corpus.json_array import read_array, starts_array

FORMATS = (".jsonl", ".json", ".txt", ".tsv", ".wet", ".warc", ".parquet")
TEXTS = ("text", "content")
URLS = ("url", "u", "uri", "link", "warc-target-uri")  # CulturaX, FineWeb, mC4; HPLT; RefinedWeb ...
HEADERS = ("warc_headers", "metadata", "meta", "headers")  # objects that may hold the address


@dataclass
class Document:
    text: str
    language: str = ""
    url: str = ""
    file: str = ""
    line: int = 0           # from 1; in a .wet, .warc or .parquet file and in a JSON array the record
    offset: int | None = None  # bytes before it in the (decompressed) file
    reason: str | None = None  # why it was dropped; "skipped: ..." when it is no document
    more: dict = field(default_factory=dict)  # other fields of the row
    original: str = ""      # the text as it was read, kept for the file of dropped documents


def read_documents(path: str | Path, unit: str = "paragraph", start: int = 0, end: int | None = None
                   ) -> Iterator[Document]:
    """Yield the documents of one file; rows that cannot be read come with .reason set.

    unit: what one document is in a .txt file: "line", "paragraph" (separated by blank lines) or "file".
    start, end: only the documents that begin in these bytes of a plain .jsonl, .tsv or .txt file (see `find_borders`).
    """
    suffix = files.format_of(path)
    if suffix == ".txt":
        documents = _read_txt(path, unit, start, end)
    elif suffix == ".jsonl":
        documents = _read_jsonl(path, start, end)
    elif suffix == ".tsv":
        documents = _read_tsv(path, start, end)
    elif suffix == ".json":
        documents = _read_json(path)
    elif suffix == ".wet":
        documents = _read_records(warc.read_wet(path))
    elif suffix == ".warc":
        documents = _read_records(warc.read_pages(path))
    elif suffix == ".parquet":
        documents = _read_parquet(path)
    else:
        raise ValueError(f"{path}: unknown format {suffix!r}; expected {', '.join(FORMATS)} (all but the last plain, "
                         ".gz, .bz2, .xz or .zst)")
    for doc in documents:
        doc.file = str(path)
        yield doc


# ---------------------------------------------------------------------- rows

def _read_jsonl(path, start=0, end=None):
    for number, offset, text, problem in read_lines(path, start, end):
        if text is not None and not text.strip():
            continue  # a blank line between records is no record
        row = None
        if problem is None:
            row, problem = files.parse_json(text)
        yield row_document(row, number, offset, problem, text)


def _read_json(path):
    """One array of rows, or one object per line."""
    if not starts_array(path):
        yield from _read_jsonl(path)
        return
    for number, row, offset, problem in read_array(path):
        yield Document("", line=number, offset=offset, reason=problem) if problem else row_document(row, number)


def _read_parquet(path):
    for number, row, problem in parquet.read_parquet(path):
        yield row_document(row, number, None, problem)


def row_document(row, number, offset=None, problem=None, raw=None):
    """The document of a row. raw: how it is written aside when it is rejected; else as JSON."""
    name = next((name for name in TEXTS if isinstance(row, dict) and isinstance(row.get(name), str)), None)
    if problem is None and name is None:
        problem = "no text: the row is not an object with a string in 'text'"
        if isinstance(row, dict) and row and "text" not in row:
            problem += f" or 'content'; its fields are {', '.join(sorted(map(str, row))[:20])}"
    if problem is None and has_lone_surrogate(row):
        problem = "lone surrogate: the text cannot be written as UTF-8"
    if problem:
        if raw is None and row is not None:
            raw = json.dumps(row, default=str)
        return Document(raw or "", line=number, offset=offset, reason=problem)
    url = find_url(row)
    if "url" in row:
        del row["url"]
    return Document(row.pop(name), url=url, line=number, offset=offset, more=row)


def find_url(row: dict) -> str:
    """The address of a row, under one of the names that corpora use."""
    places = [row, *(row[name] for name in HEADERS if isinstance(row.get(name), dict))]
    for place in places:
        for name in URLS:
            value = next((v for k, v in place.items() if str(k).lower() == name), None)
            if isinstance(value, str) and value:
                return value
    return ""


def has_lone_surrogate(row):
    """Whether some string of the row, keys included, cannot be written as UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


# ---------------------------------------------------------------------- text

def _read_txt(path, unit, start, end):
    lines, size, first = [], 0, (1, 0)  # of the document being collected, and where it begins

    def collected():
        problem = f"document longer than {files.MAX_LINE >> 20} MiB" if size > files.MAX_LINE else None
        return Document("" if problem else "\n".join(lines), line=first[0], offset=first[1], reason=problem)

    for number, offset, text, problem in read_lines(path, start, end):
        if problem:
            yield Document("", line=number, offset=offset, reason=problem)
        elif unit == "line":
            if text.strip():
                yield Document(text, line=number, offset=offset)
        elif unit == "paragraph" and not text.strip():
            if size:
                yield collected()
            lines, size = [], 0
        else:
            if not size:
                first = number, offset
            size += len(text) + 1
            if size <= files.MAX_LINE:
                lines.append(text)
            else:
                lines.clear()  # the rest of the document is not held
    if size > files.MAX_LINE or any(line.strip() for line in lines):
        yield collected()


def _read_tsv(path, start=0, end=None):
    """The first column is the text; the others are kept as more["columns"]."""
    for number, offset, text, problem in read_lines(path, start, end):
        if problem:
            yield Document("", line=number, offset=offset, reason=problem)
        elif text.strip():
            first, *others = text.split("\t")
            yield Document(first, line=number, offset=offset, more={"columns": others})


def _read_records(records):
    for text, url, number, offset, problem in records:
        yield Document(text, url=url, line=number, offset=offset, reason=problem)


# ---------------------------------------------------------------------- parts of a large file

SPLITTABLE = (".jsonl", ".tsv", ".txt")


def find_borders(path: str | Path, unit: str, size: int) -> list[int]:
    """Offsets at which a plain file can be cut into parts of about size bytes: beginnings of lines, or of paragraphs.

    [0] when the file is small, compressed, of another format or encoding, or a .txt whose unit is the file.
    """
    path = Path(path)
    if path.suffix not in SPLITTABLE or (path.suffix == ".txt" and unit == "file") or path.stat().st_size < 2 * size:
        return [0]
    separator = b"\n\n" if path.suffix == ".txt" and unit == "paragraph" else b"\n"
    borders = [0]
    with open(path, "rb") as f:
        try:
            if files.detect_encoding(f.read(4096))[0] != "utf-8":
                return [0]
        except UnicodeError:
            return [0]
        while True:
            border = find_separator(f, borders[-1] + size, separator)
            if border is None or border >= path.stat().st_size:
                return borders
            borders.append(border)


def find_separator(f, offset, separator):
    """The offset behind the first separator at or after an offset; None when none follows."""
    tail = b""
    f.seek(offset)
    while block := f.read(1 << 20):
        at = (tail + block).find(separator)
        if at >= 0:
            return offset - len(tail) + at + len(separator)
        tail, offset = (tail + block)[-1:] if len(separator) > 1 else b"", offset + len(block)
    return None
