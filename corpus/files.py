"""Files -> bytes and lines: compression, bounded lines, UTF-8. What cannot be read is reported with its place."""
import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
MAX_LINE = 64 << 20  # bytes; a longer line or record is rejected
DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error)  # what reading a damaged file raises


def format_of(path: str | Path) -> str:
    """The suffix that names the format, ".jsonl" of "a.jsonl.gz"; "" when there is none."""
    return next((s for s in reversed(Path(path).suffixes) if s not in COMPRESSED), "")


def open_bytes(path: str | Path):
    """A binary file object that decompresses by suffix."""
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
    """Reads all frames of a .zst file; zstandard's own reader stops silently after the first and at a cut end."""

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


def decode(raw: bytes) -> tuple[str | None, str | None]:
    """(text, problem) of a UTF-8 line without its newline."""
    try:
        return raw.removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf").decode("utf-8"), None
    except UnicodeDecodeError as e:
        return None, f"not UTF-8 at byte {e.start}"


def read_lines(path: str | Path) -> Iterator[tuple[int, int, str | None, str | None]]:
    """Yield (number from 1, byte offset, text, problem) of every line; text is None when there is a problem.

    Offsets are those of the decompressed file. A damaged file ends with one line whose problem begins with
    "unreadable".
    """
    rest, number, offset, too_long = b"", 0, 0, False
    try:
        with open_bytes(path) as f:
            while block := f.read1(1 << 20):
                *complete, rest = (rest + block).split(b"\n")
                for raw in complete:
                    number += 1
                    if not too_long:
                        yield number, offset, *decode(raw)
                    offset, too_long = offset + len(raw) + 1, False
                if len(rest) > MAX_LINE and not too_long:
                    yield number + 1, offset, None, f"line longer than {MAX_LINE >> 20} MiB"
                    too_long = True
                if too_long:  # skip the rest of the line without holding it
                    offset, rest = offset + len(rest), b""
    except DAMAGE as e:
        if isinstance(e, FileNotFoundError):
            raise
        yield number + 1, offset, None, f"unreadable from here on: {e}"
        return
    if rest and not too_long:
        yield number + 1, offset, *decode(rest)


def parse_json(text: str) -> tuple[object, str | None]:
    """(value, problem) of a line of JSON."""
    try:
        return json.loads(text), None
    except json.JSONDecodeError as e:
        return None, f"not JSON: {e.msg} at column {e.colno}"
    except (RecursionError, ValueError) as e:  # nested too deeply, or a number of thousands of digits
        return None, f"not JSON: {e}"


def read_parquet(path: str | Path) -> Iterator[tuple[int, dict | None, str | None]]:
    """Yield (number from 1, row, problem) of every row; row is None when there is a problem, which ends the file."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{path}: reading parquet needs a package: pip install pyarrow") from None
    try:
        table = pq.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as e:  # pyarrow's errors are subclasses
        yield 1, None, f"unreadable from here on: not a parquet file ({e})"
        return
    number, batches = 0, table.iter_batches(batch_size=1024)
    while True:
        try:
            batch = next(batches, None)
            rows = batch.to_pylist() if batch is not None else []
        except (OSError, ValueError) as e:  # a ValueError: text that is not UTF-8
            yield number + 1, None, f"unreadable from here on: {e}"
            return
        if batch is None:
            return
        for row in rows:
            number += 1
            yield number, row, None
