"""Files -> bytes, text and lines. What cannot be read is reported with its place; no line or record is unbounded."""
import bz2
import codecs
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
MAX_LINE = 64 << 20  # bytes; a longer line, record or document is rejected
MAX_WINDOW = 1 << 31  # bytes; the largest window of a .zst file (zstd --long=31)
DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error)  # what reading a damaged file raises
BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
        (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))  # UTF-32 first: it begins like UTF-16
XML_ENCODING = re.compile(rb"""\A\s*<\?xml[^>]*?\bencoding\s*=\s*["']([\w.:-]+)["']""")


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
        self.f, self.zstandard, self.frame = f, zstandard, None
        self.rest, self.out, self.position = b"", b"", 0  # not yet decompressed; decompressed, not yet read; bytes read

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.f.close()

    def tell(self):
        return self.position

    def read1(self, size):
        """At most size bytes; b"" at the end."""
        if not self.out:
            self.out = self._decompress(size)
        data, self.out = self.out[:size], self.out[size:]
        self.position += len(data)
        return data

    def read(self, size):
        parts, missing = [], size
        while missing and (data := self.read1(missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def readline(self, size):
        """A line of at most size bytes."""
        while b"\n" not in self.out[:size] and len(self.out) < size:
            more = self._decompress(size)
            if not more:
                break
            self.out += more
        end = self.out.find(b"\n", 0, size)
        return self.read1(size if end < 0 else end + 1) if self.out else b""

    def _decompress(self, size):
        """About size bytes. Input is fed in pieces of 1 KiB, as one block of four bytes can stand for 128 KiB."""
        parts, total = [], 0
        while total < size:
            block = self.rest or self.f.read(1024)
            if not block:
                break
            if self.frame is None:
                self.frame = self.zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
            try:
                parts.append(self.frame.decompress(block))
            except self.zstandard.ZstdError as e:
                self.rest, self.frame = block, None
                if parts and any(parts):
                    break  # what came before; the next call fails at once
                raise OSError(str(e)) from None
            total += len(parts[-1])
            self.rest = self.frame.unused_data
            if self.frame.eof:
                self.frame = None
        if not total and self.frame:
            raise EOFError("the file ends within a zstd frame")
        return b"".join(parts)


# ---------------------------------------------------------------------- bytes -> text

def detect_encoding(head: bytes) -> tuple[str, int]:
    """(codec, length of the byte order mark) of a file by its first bytes: mark, XML declaration, else UTF-8.

    UnicodeError when it looks like UTF-16 without a mark, or declares an encoding that is not known.
    """
    for bom, codec in BOMS:
        if head.startswith(bom):
            return codec, len(bom)
    declared = XML_ENCODING.match(head)
    if declared:
        label = declared[1].decode()
        declared_codec = find_codec(label)
        if declared_codec is None:
            raise UnicodeError(f"unknown encoding {label!r}; convert the file to UTF-8")
        return "utf-8" if declared_codec.startswith("utf-16") else declared_codec, 0  # without a mark it is not UTF-16
    controls = [sum(byte < 9 for byte in head[i::2]) for i in (0, 1)]  # the high bytes of UTF-16 in many scripts
    if max(controls) > max(2, len(head) // 50) and not min(controls):
        raise UnicodeError("it looks like UTF-16 without a byte order mark; convert it to UTF-8")
    return "utf-8", 0


# the labels that browsers read as a larger set (encoding.spec.whatwg.org)
SUPERSETS = {"iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
             "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs"}
LABELS = {"x-sjis": "shift_jis", "windows-31j": "cp932", "ks_c_5601-1987": "cp949", "windows-874": "cp874",
          "x-gbk": "gbk", "x-cp1251": "cp1251", "x-cp1252": "cp1252", "utf8mb4": "utf-8", "unicode": "utf-16-le",
          "x-euc-jp": "euc_jp", "x-x-big5": "big5", "x-mac-cyrillic": "mac_cyrillic", "macintosh": "mac_roman"}


def find_codec(label: str) -> str | None:
    """The codec of a declared charset, as browsers understand it; None when it is not known."""
    label = label.strip().strip("\"'").lower()
    try:
        name = codecs.lookup(LABELS.get(label, label))
        return SUPERSETS.get(name.name, name.name) if name._is_text_encoding else None
    except LookupError:
        return None


def decode(raw: bytes) -> tuple[str | None, str | None]:
    """(text, problem) of a UTF-8 line without its newline."""
    try:
        return raw.removesuffix(b"\r").removeprefix(codecs.BOM_UTF8).decode("utf-8"), None
    except UnicodeDecodeError as e:
        return None, f"not UTF-8 at byte {e.start}"


class _Recoder:
    """The bytes of a file in another encoding as UTF-8; `source_size` of a line is the size it has in the file."""

    def __init__(self, f, codec, first):
        self.f, self.codec, self.first = f, codec, first
        self.decoder = codecs.getincrementaldecoder(codec)("surrogatepass" if codec.startswith("utf-") else "strict")

    def read1(self, size):
        while True:
            block, self.first = self.first or self.f.read1(size), b""
            try:
                text = self.decoder.decode(block, final=not block)
            except UnicodeDecodeError as e:
                raise EOFError(f"not {self.codec}: {e.reason}") from None
            if text or not block:
                return text.encode("utf-8", "surrogatepass")

    def source_size(self, raw):
        try:
            return len(raw.decode("utf-8", "surrogatepass").encode(self.codec, "surrogatepass"))
        except UnicodeEncodeError:
            return len(raw)


# ---------------------------------------------------------------------- lines

def read_lines(path: str | Path, start: int = 0, end: int | None = None
               ) -> Iterator[tuple[int, int, str | None, str | None]]:
    """Yield (number from 1, byte offset, text, problem) of every line; text is None when there is a problem.

    Offsets are those of the decompressed file. A damaged file ends with one line whose problem begins with
    "unreadable". start, end: only the lines that begin in these bytes of a plain file; start is the beginning of a
    line.
    """
    rest, number, offset, too_long = b"", 0, 0, False
    try:
        with open_bytes(path) as f:
            stream, size_of, newline = f, len, 1
            if start:
                number, offset = count_lines(f, start), start
            else:
                head = f.read1(1 << 16)
                codec, mark = detect_encoding(head[:4096])
                if codec == "utf-8":
                    rest = head
                else:
                    stream, offset = _Recoder(f, codec, head[mark:]), mark
                    size_of, newline = stream.source_size, stream.source_size(b"\n")
            block, rest = rest, b""
            while block or (block := stream.read1(1 << 18)):
                *complete, rest = (rest + block).split(b"\n")
                block = b""
                for raw in complete:
                    if end is not None and offset >= end:
                        return
                    number += 1
                    if not too_long:
                        yield number, offset, *decode(raw)
                    offset, too_long = offset + size_of(raw) + newline, False
                if len(rest) > MAX_LINE and not too_long:
                    if end is not None and offset >= end:
                        return
                    yield number + 1, offset, None, f"line longer than {MAX_LINE >> 20} MiB"
                    too_long = True
                if too_long:  # skip the rest of the line without holding it
                    offset, rest = offset + size_of(rest), b""
    except FileNotFoundError:
        raise
    except (*DAMAGE, UnicodeError) as e:
        yield number + 1, offset, None, f"unreadable from here on: {e}"
        return
    if rest and not too_long and (end is None or offset < end):
        yield number + 1, offset, *decode(rest)


def count_lines(f, size: int) -> int:
    """How many lines end in the first bytes of an open file, which is left there."""
    count = 0
    while size:
        block = f.read(min(size, 1 << 20))
        if not block:
            raise EOFError("the file is shorter than when it was split")
        count, size = count + block.count(b"\n"), size - len(block)
    return count


def parse_json(text: str) -> tuple[object, str | None]:
    """(value, problem) of a line of JSON."""
    try:
        return json.loads(text), None
    except json.JSONDecodeError as e:
        return None, f"not JSON: {e.msg} at column {e.colno}"
    except (RecursionError, ValueError) as e:  # nested too deeply, or a number of thousands of digits
        return None, f"not JSON: {e}"
