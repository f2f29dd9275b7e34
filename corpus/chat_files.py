"""Files of chats -> rows: .jsonl, .json and .csv (each plain, .gz, .bz2, .xz or .zst) and .parquet."""
import csv
import io
import json
from pathlib import Path

from corpus.read import DAMAGE, MAX_LINE, Document, documents, open_bytes


def read_rows(path):
    """Yield (Document with the place of the row and, if it is unreadable, the reason; the row as a dict)."""
    suffix = next((s for s in reversed(Path(path).suffixes) if s not in (".gz", ".bz2", ".xz", ".zst")), "")
    readers = {".jsonl": read_jsonl, ".json": read_json, ".csv": read_csv, ".parquet": read_parquet}
    if suffix not in readers:
        raise ValueError(f"{path}: unknown format {suffix!r} of chats; expected .jsonl, .json, .csv or .parquet")
    for doc, row in readers[suffix](path):
        if doc.reason is None and not isinstance(row, dict):
            doc.text, doc.reason = json.dumps(row), "no row: expected an object"
        yield doc, row


def read_jsonl(path):
    for doc in documents(path):
        if (doc.reason or "").startswith("no text"):  # a chat needs no field "text"
            row, doc.reason = json.loads(doc.text), None
        else:
            row = doc.more | {"text": doc.text}
        yield doc, row


def read_json(path):
    """One array of rows, as Alpaca and ShareGPT are published. `line` is the number of the row."""
    try:
        with open_bytes(path) as f:
            rows = json.loads(f.read().decode("utf-8-sig"))
    except (*DAMAGE, ValueError, RecursionError) as e:
        yield Document("", line=1, offset=0, reason=f"unreadable from here on: {e}"), None
        return
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected an array of rows; one object per line is .jsonl")
    for number, row in enumerate(rows, 1):
        yield Document("", line=number), row


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
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs a package: pip install pyarrow") from None
    try:
        table = pq.ParquetFile(path)
    except (OSError, ValueError) as e:  # pyarrow's errors are subclasses; they do not name the file
        raise ValueError(f"{path}: not a parquet file ({e})") from None
    number = 0
    for batch in table.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            number += 1
            yield Document("", line=number), row
