"""Files -> documents. Whatever cannot be read becomes a rejected document with file, line and byte; nothing is lost
silently.

The suffix names the format: .jsonl (a `text` field), .txt, .tsv, .wet (Common Crawl's extracted text), .warc (pages,
from which trafilatura extracts the main text), .parquet; all but the last may be compressed (.gz, .bz2, .xz, .zst).
"""
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corpus import files, warc
from corpus.files import read_lines


@dataclass
class Document:
    text: str
    language: str = ""
    url: str = ""
    file: str = ""
    line: int = 0           # from 1; in a .wet, .warc or .parquet file the record
    offset: int | None = None  # bytes before it in the (decompressed) file
    reason: str | None = None  # why it was dropped
    more: dict = field(default_factory=dict)  # other fields of the row
    original: str = ""      # the text as it was read, kept for the file of dropped documents


def read_documents(path: str | Path, unit: str = "paragraph") -> Iterator[Document]:
    """Yield the documents of one file; rows that cannot be read come with .reason set.

    unit: what one document is in a .txt file: "line", "paragraph" (separated by blank lines) or "file".
    """
    suffix = files.format_of(path)
    readers = {".jsonl": _read_jsonl, ".json": _read_jsonl, ".tsv": _read_tsv, ".parquet": _read_parquet,
               ".wet": _read_wet, ".warc": _read_warc}
    if suffix == ".txt":
        documents = _read_txt(path, unit)
    elif suffix in readers:
        documents = readers[suffix](path)
    else:
        raise ValueError(f"{path}: unknown format {suffix!r}; expected .jsonl, .txt, .tsv, .wet, .warc (each plain, "
                         ".gz, .bz2, .xz or .zst) or .parquet")
    for doc in documents:
        doc.file = str(path)
        yield doc


def _read_jsonl(path):
    for number, offset, text, problem in read_lines(path):
        if text is not None and not text.strip():
            continue  # a blank line between records is no record
        row = None
        if problem is None:
            row, problem = files.parse_json(text)
        if problem is None and not (isinstance(row, dict) and isinstance(row.get("text"), str)):
            problem = "no text: the row is not an object with a string in 'text'"
        if problem is None and _has_lone_surrogate(row):
            problem = "lone surrogate: the text cannot be written as UTF-8"
        if problem:
            yield Document(text or "", line=number, offset=offset, reason=problem)
        else:
            yield Document(row.pop("text"), url=str(row.pop("url", "")), line=number, offset=offset, more=row)


def _has_lone_surrogate(row):
    """Whether some string of the row, keys included, cannot be written as UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _read_txt(path, unit):
    lines, start = [], (1, 0)  # of the document being collected, and where it starts
    for number, offset, text, problem in read_lines(path):
        if problem:
            yield Document("", line=number, offset=offset, reason=problem)
        elif unit == "line":
            if text.strip():
                yield Document(text, line=number, offset=offset)
        elif unit == "paragraph" and not text.strip():
            if lines:
                yield Document("\n".join(lines), line=start[0], offset=start[1])
            lines = []
        else:
            if not lines:
                start = number, offset
            lines.append(text)
    if any(line.strip() for line in lines):
        yield Document("\n".join(lines), line=start[0], offset=start[1])


def _read_tsv(path):
    """The first column is the text; the others are kept as more["columns"]."""
    for number, offset, text, problem in read_lines(path):
        if problem:
            yield Document("", line=number, offset=offset, reason=problem)
        elif text.strip():
            first, *others = text.split("\t")
            yield Document(first, line=number, offset=offset, more={"columns": others})


def _read_wet(path):
    for text, url, number, offset, problem in warc.read_wet(path):
        yield Document(text, url=url, line=number, offset=offset, reason=problem)


def _read_warc(path):
    for text, url, number, offset, problem in warc.read_pages(path):
        yield Document(text, url=url, line=number, offset=offset, reason=problem)


def _read_parquet(path):
    for number, row, problem in files.read_parquet(path):
        if problem:
            yield Document("", line=number, reason=problem)
            return
        if "text" not in row:
            raise ValueError(f"{path}: no column 'text'; the columns are {list(row)}")
        text = row.pop("text")
        problem = None if isinstance(text, str) else "no text: the row's text is null"
        yield Document(text or "", url=str(row.pop("url", "") or ""), line=number, reason=problem, more=row)
