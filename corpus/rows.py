"""Files of chats or sentence pairs -> rows: .jsonl, .json and .csv (plain or compressed) and .parquet."""
import csv
import io
import json

from corpus import files, parquet
from corpus.files import DAMAGE, MAX_LINE, open_bytes, read_lines
from corpus.json_array import read_array, starts_array
from corpus.read import Document, has_lone_surrogate

FORMATS = (".jsonl", ".json", ".csv", ".parquet")


def read_rows(path, start=0, end=None):
    """Yield (Document with the place of the row and, if it is unreadable, the reason; the row as a dict).

    start, end: only the rows that begin in these bytes of a plain .jsonl file.
    """
    suffix = files.format_of(path)
    readers = {".json": read_json, ".csv": read_csv, ".parquet": read_parquet}
    if suffix not in FORMATS:
        raise ValueError(f"{path}: unknown format {suffix!r} of rows; expected .jsonl, .json, .csv or .parquet")
    for doc, row in read_jsonl(path, start, end) if suffix == ".jsonl" else readers[suffix](path):
        if doc.reason is None and not isinstance(row, dict):
            doc.text, doc.reason = json.dumps(row), "no row: expected an object"
        yield doc, row


def read_jsonl(path, start=0, end=None):
    for number, offset, text, problem in read_lines(path, start, end):
        if problem is None and not text.strip():
            continue  # a blank line between rows is no row
        row = None
        if problem is None:
            row, problem = files.parse_json(text)
        if problem is None and has_lone_surrogate(row):
            problem = "lone surrogate: the text cannot be written as UTF-8"
        yield Document(text or "", line=number, offset=offset, reason=problem), row


def read_json(path):
    """An array of rows, as Alpaca and ShareGPT are published, or one object per line, as Hugging Face writes .json.

    `line` is the number of the row in an array.
    """
    if not starts_array(path) and is_json_lines(path):
        yield from read_jsonl(path)
        return
    for number, row, offset, problem in read_array(path):
        yield Document("", line=number, offset=offset, reason=problem), row


def is_json_lines(path):
    """Whether the first line that is not blank holds a whole JSON object."""
    for _, _, text, problem in read_lines(path):
        if problem is None and not text.strip():
            continue
        try:
            return problem is None and text.lstrip().startswith("{") and isinstance(json.loads(text), dict)
        except (ValueError, RecursionError):
            return False
    return False


def read_csv(path):
    """`line` is the last line of the row, as a field may hold line breaks."""
    csv.field_size_limit(MAX_LINE)
    with open_bytes(path) as f:
        reader = csv.DictReader(io.TextIOWrapper(f, "utf-8-sig", "surrogateescape", newline=""))
        try:
            for row in reader:
                uneven = None in row or None in row.values()
                reason = "no row: as many fields as columns" if uneven else None
                yield Document("", line=reader.line_num, reason=reason), row
        except (*DAMAGE, csv.Error) as e:
            yield Document("", line=reader.line_num, reason=f"unreadable from here on: {e}"), None


def read_parquet(path):
    for number, row, problem in parquet.read_parquet(path):
        yield Document("", line=number, reason=problem), row
