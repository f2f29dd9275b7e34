"""JSON arrays of any size -> records one by one: only the one that is being parsed and a block of text are held."""
import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path

from corpus import files

MAX_RECORD = files.MAX_LINE  # characters
BLOCK = 1 << 18  # bytes
NOT_SPACE = re.compile(r"[^ \t\n\r]")
UNREAD = (*files.DAMAGE, ValueError)  # what ends a file; UnicodeError is a ValueError


def starts_array(path: str | Path) -> bool:
    """Whether "[" is the first character of a file that is not blank."""
    with files.open_bytes(path) as f:
        try:
            return _Text(f).peek() == "["
        except UNREAD:
            return False


def read_array(path: str | Path) -> Iterator[tuple[int, object, int | None, str | None]]:
    """Yield (number from 1, record, None, None) of a file that holds one array.

    A file that cannot be read to its end ends with (number, None, offset in bytes, problem), whose problem begins with
    "unreadable" and names line and column. ValueError when the file holds another value than an array.
    """
    number, other = 0, None
    with files.open_bytes(path) as f:
        text = _Text(f)
        try:
            if text.peek() == "[":
                text.at += 1
                follows = text.peek() != "]"
                while follows:
                    record = text.value()
                    number += 1
                    yield number, record, None, None
                    follows = text.take_comma()
                text.at += 1
            else:
                other = type(text.value()).__name__
            if text.peek():
                raise text.error("Extra data")
        except UNREAD as e:
            yield number + 1, None, text.place(text.at)[3], f"unreadable from here on: {e}"
            return
    if other:
        raise ValueError(f"{path}: expected an array of rows, or one object per line; got one {other} over several "
                         "lines")


class _Text:
    """A window on the text of an open file: what is being parsed begins at text[at]."""

    def __init__(self, f):
        self.f, self.text, self.at = f, "", 0
        self.line, self.column, self.char, self.offset = 1, 1, 0, 0  # of text[0]; offset in bytes
        self.codec, self.blocks = "utf-8", self.decode()

    def decode(self):
        """Yield the text in blocks; UnicodeError names line and byte."""
        head = self.f.read1(4096)
        self.codec, mark = files.detect_encoding(head)
        self.offset, block, line, size = mark, head[mark:], 1, 0  # size: bytes since the line began
        decoder = codecs.getincrementaldecoder(self.codec)()
        while True:
            bad = None
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as e:
                text, bad = e.object[:e.start].decode(self.codec), e
            line, begin = line + text.count("\n"), text.rfind("\n") + 1
            size = len(text[begin:].encode(self.codec)) + (0 if begin else size)
            if text:
                yield text
            if bad:
                raise UnicodeError(f"line {line}: not {self.codec.upper()} at byte {size}")
            if not block:
                return
            block = self.f.read1(BLOCK)

    def more(self) -> bool:
        """Forget what lies before text[at] and hold twice of the rest; False when the file has ended."""
        held = len(self.text) - self.at
        if held > MAX_RECORD:
            raise OSError(f"a record of more than {MAX_RECORD >> 20} Mi characters; write one object per line (.jsonl)")
        parts, size = [self.text[self.at:]], 0
        while size <= held and (block := next(self.blocks, "")):
            parts.append(block)
            size += len(block)
        if size:
            self.line, self.column, self.char, self.offset = self.place(self.at)
            self.text, self.at = "".join(parts), 0
        return size > 0

    def place(self, at):
        """(line, column, character, byte) of text[at], in the file."""
        lines, size = self.text.count("\n", 0, at), len(self.text[:at].encode(self.codec))
        column = at - self.text.rfind("\n", 0, at) if lines else self.column + at
        return self.line + lines, column, self.char + at, self.offset + size

    def error(self, message, at=None):
        line, column, char, _ = self.place(self.at if at is None else at)
        return ValueError(f"not JSON: {message}: line {line} column {column} (char {char})")

    def peek(self) -> str:
        """The next character that is no white space, which is at text[at]; "" at the end."""
        while True:
            found = NOT_SPACE.search(self.text, self.at)
            self.at = found.start() if found else len(self.text)
            if found:
                return found[0]
            if not self.more():
                return ""

    def take_comma(self) -> bool:
        """Go to the next record; False at the end of the array."""
        character = self.peek()
        if character == "]":
            return False
        if character != ",":
            raise self.error("Expecting ',' delimiter")
        self.at += 1
        self.peek()
        return True

    def value(self):
        """The value at text[at]. What looks like an error, or like a whole number, may go on in the next block."""
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self.text, self.at)
            except json.JSONDecodeError as e:
                is_cut = e.msg.startswith("Unterminated") or len(self.text) - e.pos < 16
                if not (is_cut and self.more()):
                    raise self.error(e.msg, e.pos) from None
            except (ValueError, RecursionError) as e:  # a number of thousands of digits, or nested too deeply
                raise ValueError(f"not JSON: {e}") from None
            else:
                if len(self.text) - end > 3 or not self.more():  # 1 may be the beginning of 1e+5
                    self.at = end
                    return value
