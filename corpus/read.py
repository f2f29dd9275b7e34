"""Files -> documents. Every line that cannot be read becomes a counted reject with file, line and byte; nothing is lost silently.

Formats by suffix: .jsonl (a `text` field), .txt, .tsv, .wet (Common Crawl's extracted text), .warc (its pages, whose text
trafilatura extracts), .parquet; .gz, .bz2, .xz and .zst around all but the last.
"""
import bz2
import gzip
import json
import lzma
import zlib
from dataclasses import dataclass, field
from pathlib import Path

MAX_LINE = 64 << 20  # bytes; a longer line is no document


@dataclass
class Document:
    text: str
    language: str = ""
    url: str = ""
    file: str = ""
    line: int = 0           # from 1; of a .wet or .parquet file the record
    offset: int | None = None  # bytes before it, of the file or of what is compressed in it
    reason: str | None = None  # why it was dropped
    more: dict = field(default_factory=dict)  # other fields of the row


def open_bytes(path):
    """A binary file object for a plain or compressed file."""
    suffix = Path(path).suffix
    if suffix == ".gz":
        return gzip.open(path, "rb")
    if suffix == ".bz2":
        return bz2.open(path, "rb")
    if suffix == ".xz":
        return lzma.open(path, "rb")
    if suffix == ".zst":
        try:
            import zstandard
        except ImportError:
            raise ValueError(f"{path}: reading .zst needs a package: pip install zstandard") from None
        return _Zst(open(path, "rb"), zstandard)
    return open(path, "rb")


class _Zst:
    """Reads all frames of a .zst file; zstandard's own reader stops silently after the first, and where a file is cut."""

    def __init__(self, f, zstandard):
        self.f, self.zstandard, self.frame, self.rest = f, zstandard, None, b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.f.close()

    def read1(self, size):
        while block := self.rest or self.f.read(size >> 3):
            self.frame = self.frame or self.zstandard.ZstdDecompressor().decompressobj()
            try:
                out = self.frame.decompress(block)
            except self.zstandard.ZstdError as e:
                raise OSError(str(e)) from None
            self.rest = self.frame.unused_data
            self.frame = None if self.frame.eof else self.frame
            if out:
                return out
        if self.frame:
            raise EOFError("the file ends within a zstd frame")
        return b""


def lines(path):
    """Yield (number, text, problem) of every line: text without its newline, or None and what is wrong with it."""
    for number, _, text, problem in places(path):
        yield number, text, problem


def places(path):
    """Yield (number, bytes before it, text, problem) of every line."""
    rest, number, offset, too_long = b"", 0, 0, False
    try:
        with open_bytes(path) as f:
            while block := f.read1(1 << 20):
                *whole, rest = (rest + block).split(b"\n")
                for raw in whole:
                    number += 1
                    if not too_long:
                        yield number, offset, *_decode(raw)
                    offset, too_long = offset + len(raw) + 1, False
                if len(rest) > MAX_LINE and not too_long:
                    yield number + 1, offset, None, f"line longer than {MAX_LINE >> 20} MiB"
                    too_long = True
                if too_long:  # what follows of it is passed over
                    offset, rest = offset + len(rest), b""
    except DAMAGE as e:
        if isinstance(e, FileNotFoundError):
            raise
        yield number + 1, offset, None, f"unreadable from here on: {e}"
        return
    if rest and not too_long:
        yield number + 1, offset, *_decode(rest)


DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error)


def _decode(raw):
    try:
        return raw.removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf").decode("utf-8"), None
    except UnicodeDecodeError as e:
        return None, f"not UTF-8 at byte {e.start}"


def documents(path, unit="paragraph"):
    """Yield Documents of one file; unreadable rows come with .reason set.

    unit: what a document is in a .txt file: "line", "paragraph" (blank lines between) or "file".
    """
    kind = next((s for s in reversed(Path(path).suffixes) if s not in (".gz", ".bz2", ".xz", ".zst")), "")
    rows = {".jsonl": _jsonl, ".json": _jsonl, ".tsv": _tsv, ".parquet": _parquet, ".txt": _txt, ".wet": _wet,
            ".warc": _warc}.get(kind)
    if rows is None:
        raise ValueError(f"{path}: unknown format {kind!r}; expected .jsonl, .txt, .tsv, .wet, .warc (each plain, .gz, .bz2, "
                         ".xz or .zst) or .parquet")
    for doc in (rows(path, unit) if rows is _txt else rows(path)):
        doc.file = str(path)
        yield doc


def _jsonl(path):
    for number, offset, text, problem in places(path):
        if text is not None and not text.strip():
            continue  # a blank line between records is no record
        row = None
        if problem is None:
            try:
                row = json.loads(text)
            except json.JSONDecodeError as e:
                problem = f"not JSON: {e.msg} at column {e.colno}"
            except (RecursionError, ValueError) as e:  # nested too deeply, or a number of thousands of digits
                problem = f"not JSON: {e}"
        if problem is None and not (isinstance(row, dict) and isinstance(row.get("text"), str)):
            problem = "no text: the row is not an object with a string in 'text'"
        if problem is None:
            try:
                json.dumps(row, ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError:
                problem = "lone surrogate: the text cannot be written as UTF-8"
        if problem:
            yield Document(text or "", line=number, offset=offset, reason=problem)
        else:
            yield Document(row.pop("text"), url=str(row.pop("url", "")), line=number, offset=offset, more=row)


def _txt(path, unit):
    held, first = [], (1, 0)
    for number, offset, text, problem in places(path):
        if problem:
            yield Document("", line=number, offset=offset, reason=problem)
        elif unit == "line":
            if text.strip():
                yield Document(text, line=number, offset=offset)
        elif unit == "paragraph" and not text.strip():
            if held:
                yield Document("\n".join(held), line=first[0], offset=first[1])
            held = []
        else:
            first = first if held else (number, offset)
            held.append(text)
    if held and any(h.strip() for h in held):
        yield Document("\n".join(held), line=first[0], offset=first[1])


def _tsv(path):
    """The first column is the text; the others are kept as more["columns"]."""
    for number, offset, text, problem in places(path):
        if problem:
            yield Document("", line=number, offset=offset, reason=problem)
        elif text.strip():
            first, *others = text.split("\t")
            yield Document(first, line=number, offset=offset, more={"columns": others})


def _wet(path):
    for head, raw, number, offset, problem in records(path):
        if problem or head["warc-type"] == "conversion":  # other kinds of records hold no text
            text, problem = (None, problem) if problem else _decode(raw)
            yield Document(text or "", url=head.get("warc-target-uri", ""), line=number, offset=offset, reason=problem)


def _warc(path):
    """Pages as they were fetched: trafilatura takes the main text out of the HTML and leaves menus and notices behind."""
    try:
        import trafilatura
    except ImportError:
        raise ValueError(f"{path}: pip install trafilatura lxml_html_clean to read pages, or take the .wet file") from None
    for head, raw, number, offset, problem in records(path):
        if problem or head["warc-type"] == "response" and b"text/html" in raw.partition(b"\r\n\r\n")[0].lower():
            text = None if problem else trafilatura.extract(raw.partition(b"\r\n\r\n")[2], deduplicate=False)
            yield Document(text or "", url=head.get("warc-target-uri", ""), line=number, offset=offset,
                           reason=problem or (None if text else "no text: no main text was found in the page"))


def records(path):
    """Yield (headers, content, number, offset, problem) of WARC records: header lines, a blank line, Content-Length bytes."""
    number, offset, f = 0, 0, open_bytes(path)
    try:
        while line := f.readline(1 << 16):
            if not line.strip():
                continue
            number, offset, head = number + 1, f.tell() - len(line), {"warc-type": ""}
            if not line.startswith(b"WARC/"):
                raise EOFError(f"record {number} does not begin with WARC/")
            while (line := f.readline(1 << 16)).strip():
                name, _, value = line.decode("utf-8", "replace").partition(":")
                head[name.strip().lower()] = value.strip()
            size = int(head["content-length"]) if head.get("content-length", "").isdigit() else MAX_LINE + 1
            if size > MAX_LINE:
                raise EOFError(f"record {number} claims a length of {head.get('content-length')!r} bytes")
            raw = f.read(size)
            if len(raw) < size:
                raise EOFError(f"record {number} is cut: {len(raw)} of {size} bytes")
            yield head, raw, number, offset, None
    except DAMAGE as e:
        yield {}, b"", number, offset, f"unreadable from here on: {e}"
    finally:
        f.close()


def _parquet(path):
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs a package: pip install pyarrow") from None
    try:
        table = pq.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as e:  # pyarrow's errors are subclasses
        yield Document("", line=1, reason=f"unreadable from here on: not a parquet file ({e})")
        return
    if "text" not in table.schema_arrow.names:
        raise ValueError(f"{path}: no column 'text'; the columns are {table.schema_arrow.names}")
    number, batches = 0, table.iter_batches(batch_size=1024)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            found = batch.to_pylist()
        except (OSError, ValueError) as e:  # a ValueError is text that is not UTF-8
            yield Document("", line=number + 1, reason=f"unreadable from here on: {e}")
            return
        for row in found:
            number += 1
            text = row.pop("text")
            problem = None if isinstance(text, str) else "no text: the row's text is null"
            yield Document(text or "", url=str(row.pop("url", "") or ""), line=number, reason=problem, more=row)
